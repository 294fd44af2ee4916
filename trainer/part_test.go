package trainer

import (
	"fmt"
	"math"
	"testing"
)

func TestPartsHaveTheirShares(t *testing.T) {
	s := Split{Salt: "x", TrainingPPM: 700_000, ValidationPPM: 100_000}
	var count [3]int
	const n = 20_000
	for i := range n {
		count[s.part(splitKey{text: fmt.Sprint("payload ", i)})]++
	}
	for p, want := range [3]float64{0.7, 0.1, 0.2} {
		if got := float64(count[p]) / n; math.Abs(got-want) > 0.012 {
			t.Errorf("%v has a share of %v, want %v", Part(p), got, want)
		}
	}
}

func TestPartFollowsTheFirstKeyThereIs(t *testing.T) {
	s := Split{Salt: "x", TrainingPPM: 500_000, ValidationPPM: 250_000}
	moved := [4]int{}
	for i := range 500 {
		a, b := fmt.Sprint("10.0.0.", i), fmt.Sprint("text ", i)
		if s.part(splitKey{exploit: 7, address: a, text: b}) != s.part(splitKey{exploit: 7}) {
			t.Fatal("an exploit's requests are torn apart")
		}
		if s.part(splitKey{address: a, text: b}) != s.part(splitKey{address: a, text: "other"}) {
			t.Fatal("an address is on two sides")
		}
		base := s.part(splitKey{text: a})
		if base != s.part(splitKey{address: a}) {
			moved[0]++
		}
		if base != (Split{Salt: "y", TrainingPPM: 500_000, ValidationPPM: 250_000}).part(splitKey{text: a}) {
			moved[1]++
		}
		if s.part(splitKey{exploit: int64(i + 1)}) != s.part(splitKey{text: fmt.Sprint(i + 1)}) {
			moved[2]++
		}
		if base != s.part(splitKey{text: b}) {
			moved[3]++
		}
	}
	for i, n := range moved {
		if n < 200 {
			t.Errorf("kind %d of key or salt moves only %d of 500: parts do not depend on it", i, n)
		}
	}
}
