package feature

import "net/netip"

// reserved lists the networks that are no global source, by the special-purpose
// address registries of IANA (RFC 6890 and its updates), beyond those that
// net/netip names itself.
var reserved = func() (out []netip.Prefix) {
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
		"240.0.0.0/4", "64:ff9b:1::/48", "100::/64", "2001:2::/48", "2001:db8::/32", "3fff::/20", "5f00::/16",
	} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}()

// address fills the address columns. A text that is no address, such as a host
// name or a keyed hash, leaves them 0. An IPv4 address mapped into IPv6 counts
// as IPv4.
func address(dst []float32, s string) {
	if !addressLike(s) {
		return
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return
	}
	a = a.Unmap()
	global := a.IsGlobalUnicast() && !a.IsPrivate()
	for i := 0; global && i < len(reserved); i++ {
		global = !reserved[i].Contains(a)
	}
	putFlag(dst, colAddressReserved, !global)
	if a.Is4() {
		b := a.As4()
		dst[colAddressV4] = 1
		put(dst, colAddressOctet1, int(b[0]))
		put(dst, colAddressOctet2, int(b[1]))
		return
	}
	b := a.As16()
	dst[colAddressV6] = 1
	put(dst, colAddressHextet1, int(b[0])<<8|int(b[1]))
	put(dst, colAddressHextet2, int(b[2])<<8|int(b[3]))
}

// addressLike keeps texts from netip.ParseAddr that it would refuse with an
// allocated error. Zones, which would be interned, are refused too.
func addressLike(s string) bool {
	if len(s) < 2 || len(s) > 45 {
		return false
	}
	colons, dots := 0, 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == ':':
			colons++
		case c == '.':
			dots++
		case !isHex(c):
			return false
		}
	}
	return colons >= 2 || colons == 0 && dots == 3
}
