package detmath

import (
	"bytes"
	"flag"
	"fmt"
	"go/format"
	"math/big"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite tables.go")

// top returns |y| (units of 2^-digits) rounded to units of 2^-n.
func top(y *big.Int, n int) *big.Int {
	half := new(big.Int).Lsh(big.NewInt(1), uint(digits-n-1))
	r := new(big.Int).Add(y, half)
	return r.Rsh(r, uint(digits-n))
}

// words returns y modulo 2^128 as two words.
func words(y *big.Int) (hi, lo uint64) {
	m := new(big.Int).And(y, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 128), big.NewInt(1)))
	return new(big.Int).Rsh(m, 64).Uint64(), new(big.Int).And(m, new(big.Int).SetUint64(1<<64-1)).Uint64()
}

func tables() []byte {
	var b bytes.Buffer
	b.WriteString("package detmath\n\n// Constants rounded from exact arithmetic; the tests make this file again and compare.\n\n")
	log2e := new(big.Int).Lsh(unit, digits)
	log2e.Quo(log2e, bigLn)
	hi, lo := words(top(log2e, 127))
	fmt.Fprintf(&b, "// log2(e) in units of 2^-127.\nconst (\nlog2eHi = %#x\nlog2eLo = %#x\n)\n\n", hi, lo)
	hi, lo = words(top(bigLn, 117))
	fmt.Fprintf(&b, "// ln 2 in units of 2^-117.\nconst (\nln2HiQ117 = %#x\nln2LoQ117 = %#x\n)\n\n", hi, lo)
	_, lo = words(top(bigLn, 64))
	fmt.Fprintf(&b, "// ln 2 in units of 2^-64.\nconst ln2Q64 = %#x\n\n", lo)

	b.WriteString("// exp2Table[i] is 2^(i/32) in units of 2^-63.\nvar exp2Table = [32]uint64{\n")
	for i := range int64(32) {
		y := new(big.Int).Mul(bigLn, big.NewInt(i))
		m, e := refExp(y.Quo(y, big.NewInt(32)))
		if e != -digits {
			m.Lsh(m, 1)
		}
		_, lo := words(top(m, 63))
		fmt.Fprintf(&b, "%#x,\n", lo)
	}
	b.WriteString("}\n\n// From this interval on, log halves the mantissa.\nconst logHalved = 53\n\n")

	b.WriteString("// logTable has for the i-th of 128 equal parts of [1, 2) a c/512 near the inverse\n" +
		"// of its middle (of half its middle from logHalved on), and -ln(c/512) in units of\n// 2^-117 as two's complement.\n" +
		"var logTable = [128]struct {\nc uint16\nhi, lo uint64\n}{\n")
	for i := range int64(128) {
		// 512/(1+(2i+1)/256) = 131072/(257+2i), twice that for the upper part, rounded.
		num, den := int64(131072), 257+2*i
		if i >= 53 {
			num *= 2
		}
		c := (2*num + den) / (2 * den)
		if i == 0 || i == 127 {
			c = 512
		}
		l := refLogOfFraction(big.NewInt(512), big.NewInt(c))
		hi, lo := words(top(l, 117))
		fmt.Fprintf(&b, "{%d, %#x, %#x},\n", c, hi, lo)
	}
	b.WriteString("}\n")
	out, err := format.Source(b.Bytes())
	if err != nil {
		panic(err)
	}
	return out
}

func TestTablesAreExactlyRounded(t *testing.T) {
	want := tables()
	if *update {
		if err := os.WriteFile("tables.go", want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("tables.go")
	if err != nil {
		t.Fatal(err)
	}
	if strings.ReplaceAll(string(got), "\r\n", "\n") != string(want) {
		t.Error("tables.go is not what exact arithmetic gives; run with -update")
	}
}
