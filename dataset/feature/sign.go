package feature

// signColumns are columns that are 0 for most ordinary requests and not for
// most attacks: quotes, operators, escapes without need, and what the grammars
// of attacks are recognised by. One alone proves nothing. Square and curly
// brackets are not among them: in published exploits they are placeholders,
// elsewhere names of parameters.
var signColumns = [...]column{
	colQuote, colDoubleQuote, colBacktick, colAngle, colParen, colSemicolon, colPipe, colDollar, colAsterisk, colBackslash,
	colNeedlessEscapes, colBadEscapes, colComments, colNullBytes, colLineBreaks, colHexLiterals,
	colTraversalUps, colSensitive, colSchemeInside, colSchemeWrapper, colFamilies,
}

// Signs reports whether a vector of Dim columns shows anything in its payload
// that an attack could be recognised by. Without a sign a request is one that
// anybody might send, whoever did send it.
func Signs(v []float32) bool {
	for _, c := range signColumns {
		if v[c] > 0 {
			return true
		}
	}
	return false
}
