package fusion

import "math"

type number interface{ ~float32 | ~float64 }

type whole interface{ ~int32 | ~int64 }

type vector struct{ x, y float64 }

func sums(x, y, z float64, f float32) float64 {
	a := x*y + z          // want `fusion: x \* y may be fused`
	a = z - x*y           // want `fusion: x \* y may be fused`
	a = -(x * y) + z      // want `fusion: x \* y may be fused`
	a = (x*y + z) / 2     // want `fusion: x \* y may be fused` `fusion: \(x \* y \+ z\) / 2 may be fused`
	a += x * y            // want `fusion: x \* y may be fused`
	a = x/4 + z           // want `fusion: x / 4 may be fused`
	a = x/0.125 - z       // want `fusion: x / 0.125 may be fused`
	b := f*f + 1          // want `fusion: f \* f may be fused`
	a += 2 * math.Sqrt(y) // want `fusion: 2 \* math.Sqrt\(y\) may be fused`
	return a + float64(b)
}

func rounded(x, y, z float64, f float32) float64 {
	a := float64(x*y) + z
	a = z - float64(x*y)
	a = float64(-(x * y)) + z
	a = float64((x*y)/4) + z
	a += float64(x * y)
	a = x/3 + z
	a = x/y + z
	a = 1/x - z
	a = float64(float32(f*f)) + 1
	a = float64(x*y*z) - x
	a = float64(int(x*y)) + z // want `integer: int`
	if x*y < z || z*z == x*x {
		a -= 0.5 * 8
	}
	const half = 1.0 / 2
	return a + half
}

// A product that is not rounded may meet an addition anywhere.

func variable(x, y, z float64) float64 {
	p := x * y // want `fusion: x \* y may be fused`
	return p + z
}

func result(x, y float64) float64 {
	return x * y // want `fusion: x \* y may be fused`
}

func argument(x, y float64) float64 {
	return math.Floor(x * y) // want `fusion: x \* y may be fused`
}

func element(s []float64, x, y, z float64) float64 {
	s[0] = x * y // want `fusion: x \* y may be fused`
	return s[0] + z
}

func field(x, y float64) vector {
	return vector{
		x: x * y, // want `fusion: x \* y may be fused`
		y: float64(x * y),
	}
}

func assigned(x, y float64) float64 {
	x *= y // want `fusion: x \*= y may be fused`
	x /= 2 // want `fusion: x /= 2 may be fused`
	x /= 3
	x = float64(x * y)
	return x
}

func product[T number](x, y, z T) T {
	return T(x*y) + x*z // want `fusion: x \* z may be fused`
}

func integers[T whole](x, y, z T) T {
	x *= y
	return x*y + z/2
}

func complexes(x, y complex128) complex128 {
	x /= y                  // want `fusion: x /= y may be fused`
	x = complex128(x*y) + 1 // want `fusion: complex x \* y`
	x = complex128(x/y) / 2 // want `fusion: complex x / y` `fusion: complex complex128\(x / y\) / 2`
	return x + y
}
