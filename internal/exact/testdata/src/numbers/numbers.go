package numbers

type duration int64

type number interface{ ~float64 | ~int32 }

type celsius float32

func toInteger(x float64, f celsius) int {
	a := int(x)   // want `integer: int\(x\) depends on the processor`
	b := uint8(f) // want `integer: uint8\(f\) depends on the processor`
	const c = int64(2.0)
	return a + int(b) + int(c) + int(int8(a))
}

func generic[T number](x T) int32 {
	return int32(x) // want `integer: int32\(x\) depends on the processor`
}

func toFloat(i int64, u uint64, d duration, n int, w uint32) float32 {
	f := float32(i) // want `narrow: float32\(i\) is rounded twice`
	f += float32(u) // want `narrow: float32\(u\) is rounded twice`
	g := celsius(d) // want `narrow: celsius\(d\) is rounded twice`
	f += float32(n) + float32(w) + float32(float64(u)) + float32(int64(7))
	return f + float32(g)
}
