package feature

import (
	"slices"
	"strconv"
)

// SchemaVersion names the meaning of every column and of the tracker. It is
// raised whenever a vector of some record changes.
const SchemaVersion = 1

// Widths of the hashed column blocks.
const (
	wordColumns = 36 // words
	kindColumns = 24 // triples of token kinds
	gramColumns = 16 // triples of characters
)

// Dim is the number of columns of a vector.
const Dim = int(colCount)

// Group is a family of columns that a model uses or leaves as a whole.
type Group string

const (
	Shape     Group = "shape"     // lengths, counts, form of the request and of its headers
	Chars     Group = "chars"     // character classes, runs and entropy
	Structure Group = "structure" // encodings and grammars
	Token     Group = "token"     // hashed words, token kinds and characters
	Lexical   Group = "lexicon"   // names learnt from exploit titles
	Ports     Group = "port"      // destination port and protocol
	Address   Group = "address"   // source address
	History   Group = "history"   // earlier events of the same source
)

// Column describes one column of a vector.
type Column struct {
	Name  string // unique, lower case, words joined by "_"
	Group Group
	Unit  string // "count", "flag", "percent", "log8", …
	Max   int    // largest value; the smallest is 0
	Doc   string // one sentence
}

// column numbers; their order is the order of the vector.
type column int

const (
	colPayloadLength column = iota
	colTextLength
	colTargetForm
	colPathSegments
	colPathLongest
	colParameters
	colNameLongest
	colValueLongest
	colExtScript
	colExtStatic
	colExtBackup
	colHiddenFile
	colProbeWords
	colWords
	colMethodGet
	colMethodPost
	colMethodWrite
	colMethodRare
	colStatusClass
	colStatusDenied
	colStatusMissing
	colSize
	colRefererLength
	colAgentLength
	colAgentScanner
	colAgentLibrary
	colAgentBrowser
	colHeaderMarkers
	colUserLength
	colUserCommon
	colUserDigits

	colUpper
	colLetters
	colDigits
	colPunctuation
	colNonASCII
	colControl
	colQuote
	colDoubleQuote
	colBacktick
	colAngle
	colParen
	colBracket
	colBrace
	colSemicolon
	colColon
	colDot
	colPipe
	colAmpersand
	colDollar
	colHash
	colPercent
	colAsterisk
	colEquals
	colAt
	colBackslash
	colSlash
	colRunByte
	colRunLetters
	colRunDigits
	colRunPunctuation
	colRunConsonants
	colSwitches
	colEntropyText
	colEntropyPart
	colEntropyWord
	colPartPunctuation
	colPartsPunctuated

	colDecodeLayers
	colPercentEscapes
	colNeedlessEscapes
	colUnicodeEscapes
	colEntities
	colBackslashEscapes
	colOverlong
	colBadEscapes
	colComments
	colNullBytes
	colLineBreaks
	colQuoteOdd
	colDoubleQuoteOdd
	colQuoteEdge
	colImbalance
	colSQLWords
	colSQLParts
	colSQLCalls
	colSQLTiming
	colSQLUnion
	colSQLFrom
	colSQLStacked
	colSQLEqual
	colSQLCompare
	colSQLLogic
	colSQLOrder
	colSQLSubselect
	colSQLTail
	colSQLSchema
	colHexLiterals
	colShellOperators
	colShellCommands
	colShellAfter
	colShellFirst
	colShellOption
	colShellSubstitution
	colShellRedirect
	colTraversalUps
	colTraversalDepth
	colTraversalDots
	colSelfReferences
	colSensitive
	colDrive
	colSchemeFirst
	colSchemeInside
	colSchemeWrapper
	colSchemeScript
	colInternalHost
	colTags
	colTagsKnown
	colTagsClosed
	colEventHandlers
	colScriptCalls
	colScriptWords
	colXML
	colXMLEntity
	colTemplate
	colDollarBrace
	colLookup
	colCodeCalls
	colCodeOpen
	colHeaderWords
	colSerialized
	colLDAP
	colFormat
	colSled
	colCalls
	colSignShell
	colSignTraversal
	colSignMarkup
	colSignCode
	colFamilies
	colPartFamilies

	colWord0 // the first of the hashed columns
)

const (
	colKind0 = colWord0 + wordColumns
	colGram0 = colKind0 + kindColumns
)

const (
	colScriptHits = colGram0 + gramColumns + iota
	colParameterHits
	colPairHits
	colPortHit

	colPort
	colPortWeb
	colPortShell
	colPortMail
	colPortData
	colPortDesk
	colProtocolWeb
	colProtocolShell

	colAddressV4
	colAddressV6
	colAddressReserved
	colAddressOctet1
	colAddressOctet2
	colAddressHextet1
	colAddressHextet2

	colHasHistory
	colEvents
	colEvents5m
	colEvents1h
	colFailed
	colFailed1h
	colSucceeded
	colFailedShare
	colPaths
	colUsers
	colPortsTried
	colAgents
	colSinceFirst
	colSinceLast
	colIntervalMean
	colIntervalDeviation
	colClientErrors
	colClientErrorShare
	colMarked
	colMarkedShare

	colCount
)

// Largest values of the units.
const (
	maxLog8  = 495 // log8 of 2^63
	maxCount = 63  // a capped count
	maxToken = 15  // a capped count of a hashed column
)

// Columns describes the columns in the order of the vector. Callers must not
// change it.
//
// The unit "log8" is a count n on a scale with eight steps per doubling, exact
// below 16: n itself for n < 8; else, with the highest bit of n numbered k, 8
// times (k-2) plus the three bits below the highest. "count" stops at Max.
var Columns = columns()

func columns() []Column {
	c := make([]Column, Dim)
	set := func(at column, name string, g Group, unit string, maximum int, doc string) {
		c[at] = Column{Name: name, Group: g, Unit: unit, Max: maximum, Doc: doc}
	}
	log8 := func(at column, name string, g Group, doc string) { set(at, name, g, "log8", maxLog8, doc) }
	count := func(at column, name string, g Group, doc string) { set(at, name, g, "count", maxCount, doc) }
	flag := func(at column, name string, g Group, doc string) { set(at, name, g, "flag", 1, doc) }
	share := func(at column, name string, g Group, doc string) { set(at, name, g, "percent", 100, doc) }

	log8(colPayloadLength, "payload_length", Shape, "Bytes of the payload as given; 0 without one.")
	log8(colTextLength, "text_length", Shape, "Bytes of the normalised payload.")
	set(colTargetForm, "target_form", Shape, "code", 4, "What the payload looks like: 0 absent, 1 a bare value, 2 a path, 3 an absolute URL, 4 name=value pairs.")
	count(colPathSegments, "path_segments", Shape, "Non-empty segments of the path.")
	log8(colPathLongest, "path_longest", Shape, "Bytes of the longest path segment.")
	count(colParameters, "parameters", Shape, "Parameters of the query or form.")
	log8(colNameLongest, "name_longest", Shape, "Bytes of the longest parameter name.")
	log8(colValueLongest, "value_longest", Shape, "Bytes of the longest parameter value, or of a bare value.")
	flag(colExtScript, "ext_script", Shape, "The path ends in the extension of a server-side script.")
	flag(colExtStatic, "ext_static", Shape, "The path ends in the extension of an image, style sheet, page or other static file.")
	flag(colExtBackup, "ext_backup", Shape, "The path ends in the extension of a backup, archive, dump, log, configuration or program file.")
	count(colHiddenFile, "hidden_file", Shape, "Path segments that begin with a dot and a letter.")
	count(colProbeWords, "probe_words", Shape, "Words of the path or of a bare value that scanners ask for: admin, setup, backup and such.")
	log8(colWords, "words", Shape, "Words in the normalised payload.")
	flag(colMethodGet, "method_get", Shape, "The method is GET.")
	flag(colMethodPost, "method_post", Shape, "The method is POST.")
	flag(colMethodWrite, "method_write", Shape, "The method is PUT, PATCH or DELETE.")
	flag(colMethodRare, "method_rare", Shape, "There is another method, HEAD among them.")
	set(colStatusClass, "status_class", Shape, "code", 5, "First digit of the HTTP status, 0 when unknown.")
	flag(colStatusDenied, "status_denied", Shape, "The status is 401 or 403.")
	flag(colStatusMissing, "status_missing", Shape, "The status is 404 or 410.")
	log8(colSize, "size", Shape, "Bytes answered.")
	log8(colRefererLength, "referer_length", Shape, "Bytes of the referer; 0 without one.")
	log8(colAgentLength, "agent_length", Shape, "Bytes of the user agent or client version; 0 without one.")
	flag(colAgentScanner, "agent_scanner", Shape, "The user agent names a known scanner or attack tool.")
	flag(colAgentLibrary, "agent_library", Shape, "The user agent names a library, command-line client or crawler.")
	flag(colAgentBrowser, "agent_browser", Shape, "The user agent names a browser.")
	count(colHeaderMarkers, "header_markers", Shape, "Attack families with a sure sign in user agent, referer or user name, added up.")
	log8(colUserLength, "user_length", Shape, "Bytes of the account name tried; 0 without one.")
	flag(colUserCommon, "user_common", Shape, "The account name is one that password guessing tries first.")
	share(colUserDigits, "user_digits", Shape, "Share of digits in the account name.")

	share(colUpper, "upper", Chars, "Share of upper-case letters in the decoded payload.")
	share(colLetters, "letters", Chars, "Share of letters and underscores in the normalised payload.")
	share(colDigits, "digits", Chars, "Share of digits in the normalised payload.")
	share(colPunctuation, "punctuation", Chars, "Share of ASCII punctuation in the normalised payload.")
	log8(colNonASCII, "non_ascii", Chars, "Bytes from 0x80 up in the normalised payload.")
	log8(colControl, "control", Chars, "Control characters other than null and white space in the decoded payload.")
	for _, x := range []struct {
		at    column
		name  string
		chars string
	}{
		{colQuote, "quote", "'"}, {colDoubleQuote, "double_quote", `"`}, {colBacktick, "backtick", "`"},
		{colAngle, "angle", "< and >"}, {colParen, "paren", "( and )"}, {colBracket, "bracket", "[ and ]"},
		{colBrace, "brace", "{ and }"}, {colSemicolon, "semicolon", ";"}, {colColon, "colon", ":"},
		{colDot, "dot", "."}, {colPipe, "pipe", "|"}, {colAmpersand, "ampersand", "&"}, {colDollar, "dollar", "$"},
		{colHash, "hash", "#"}, {colPercent, "percent_sign", "%"}, {colAsterisk, "asterisk", "*"},
		{colEquals, "equals", "="}, {colAt, "at", "@"}, {colSlash, "slash", "/"},
	} {
		log8(x.at, x.name, Chars, "Number of "+x.chars+" in the normalised payload.")
	}
	log8(colBackslash, "backslash", Chars, "Number of backslashes in the decoded payload.")
	log8(colRunByte, "run_byte", Chars, "Longest run of one repeated byte.")
	log8(colRunLetters, "run_letters", Chars, "Longest run of letters and underscores.")
	log8(colRunDigits, "run_digits", Chars, "Longest run of digits.")
	log8(colRunPunctuation, "run_punctuation", Chars, "Longest run of punctuation.")
	log8(colRunConsonants, "run_consonants", Chars, "Longest run of ASCII consonants.")
	log8(colSwitches, "switches", Chars, "Places where a letter and a digit touch.")
	set(colEntropyText, "entropy_text", Chars, "1/16 bit", 128, "Entropy of the bytes of the normalised payload.")
	set(colEntropyPart, "entropy_part", Chars, "1/16 bit", 128, "Largest entropy of the bytes of one path segment or value.")
	set(colEntropyWord, "entropy_word", Chars, "1/16 bit", 128, "Entropy of the bytes of the longest word; of the first of equals.")
	count(colPartPunctuation, "part_punctuation", Chars, "Largest number of punctuation characters in one path segment or value.")
	count(colPartsPunctuated, "parts_punctuated", Chars, "Path segments and values with at least three punctuation characters.")

	set(colDecodeLayers, "decode_layers", Structure, "count", maxLayers, "Layers of escapes that were undone.")
	log8(colPercentEscapes, "percent_escapes", Structure, "Percent escapes undone, over all layers.")
	log8(colNeedlessEscapes, "needless_escapes", Structure, "Percent escapes of characters that need none.")
	count(colUnicodeEscapes, "unicode_escapes", Structure, `Escapes of the forms %uXXXX and \uXXXX undone.`)
	count(colEntities, "entities", Structure, "HTML character references undone.")
	count(colBackslashEscapes, "backslash_escapes", Structure, `Escapes of the forms \xXX and 0x2e, 0x2f, 0x5c undone.`)
	count(colOverlong, "overlong", Structure, "Overlong, full-width and look-alike characters replaced.")
	count(colBadEscapes, "bad_escapes", Structure, "Percent signs without two hex digits.")
	count(colComments, "comments", Structure, "Comments /*…*/ removed.")
	count(colNullBytes, "null_bytes", Structure, "Null bytes in the decoded payload.")
	count(colLineBreaks, "line_breaks", Structure, "Carriage returns and line feeds in the decoded payload.")
	count(colHeaderWords, "header_words", Structure, "Names of HTTP headers at the start of a later line, followed by a colon or dash.")
	count(colQuoteOdd, "quote_odd", Structure, "Path segments and values with an odd number of single quotes.")
	count(colDoubleQuoteOdd, "double_quote_odd", Structure, "Path segments and values with an odd number of double quotes.")
	count(colQuoteEdge, "quote_edge", Structure, "Path segments and values with an odd number of quotes that begin or end with one.")
	count(colImbalance, "imbalance", Structure, "Largest number of unmatched brackets ()[]{} in one path segment or value.")
	count(colSQLWords, "sql_words", Structure, "Largest number of SQL keywords in one path segment or value.")
	count(colSQLParts, "sql_parts", Structure, "Path segments and values with a sure sign of SQL injection.")
	count(colSQLCalls, "sql_calls", Structure, "SQL functions followed by a parenthesis.")
	count(colSQLTiming, "sql_timing", Structure, "SQL functions and statements that wait.")
	count(colSQLUnion, "sql_union", Structure, "The word union followed by select, with at most all, distinct and opening parentheses between.")
	count(colSQLFrom, "sql_from", Structure, "The word select followed by from in the same value.")
	count(colSQLStacked, "sql_stacked", Structure, "A word that starts an SQL statement right after a semicolon.")
	count(colSQLEqual, "sql_equal", Structure, "Comparisons of a word or number with itself.")
	count(colSQLCompare, "sql_compare", Structure, "Comparisons within eight tokens after a logical word that breaks out; < and > only right before a number or sign.")
	count(colSQLLogic, "sql_logic", Structure, "Logical words and operators right after a quote, a closing parenthesis or a number.")
	count(colSQLOrder, "sql_order", Structure, "The words order by, group by or having.")
	count(colSQLSubselect, "sql_subselect", Structure, "The word select right after an opening parenthesis.")
	count(colSQLTail, "sql_tail", Structure, "Values that end in, or before more text hold, an SQL comment opener.")
	count(colSQLSchema, "sql_schema", Structure, "Names of system tables, variables and procedures of databases.")
	count(colHexLiterals, "hex_literals", Structure, "Words of the form 0x and hex digits.")
	count(colShellOperators, "shell_operators", Structure, "Largest number of shell operators in one path segment or value.")
	count(colShellCommands, "shell_commands", Structure, "Largest number of names of commands in one path segment or value.")
	count(colShellAfter, "shell_after", Structure, "Names of commands right after a shell operator, with or without a path.")
	count(colShellFirst, "shell_first", Structure, "Values that begin with the name of a command, with or without a path.")
	count(colShellOption, "shell_option", Structure, "Names of commands followed by an option, a path or a number.")
	count(colShellSubstitution, "shell_substitution", Structure, "Openings of command or variable substitution: backtick, $( and ${ifs.")
	count(colShellRedirect, "shell_redirect", Structure, "Redirections to or from a path or descriptor.")
	count(colTraversalUps, "traversal_ups", Structure, "Steps to a parent directory.")
	count(colTraversalDepth, "traversal_depth", Structure, "Longest chain of such steps.")
	log8(colTraversalDots, "traversal_dots", Structure, "Longest run of dots.")
	count(colSelfReferences, "self_references", Structure, "Empty and single-dot path segments.")
	count(colSensitive, "sensitive", Structure, "Names of files and folders that attacks read: etc, passwd, boot, ini and such.")
	count(colDrive, "drive", Structure, "Drive letters followed by a colon and a separator.")
	count(colSchemeFirst, "scheme_first", Structure, "The payload begins with a URL scheme.")
	count(colSchemeInside, "scheme_inside", Structure, "URL schemes with :// in the path or in a parameter value.")
	count(colSchemeWrapper, "scheme_wrapper", Structure, "Stream wrappers and rare schemes that reach files or services.")
	count(colSchemeScript, "scheme_script", Structure, "The schemes javascript, vbscript and data followed by a colon.")
	count(colInternalHost, "internal_host", Structure, "Host names and IPv4 addresses of the local machine, private networks and cloud metadata.")
	count(colTags, "tags", Structure, "Markup tags opened.")
	count(colTagsKnown, "tags_known", Structure, "Tags opened that can carry script.")
	count(colTagsClosed, "tags_closed", Structure, "Markup tags closed, comments and declarations opened.")
	count(colEventHandlers, "event_handlers", Structure, "Words that begin with on, followed by an equals sign.")
	count(colScriptCalls, "script_calls", Structure, "Script functions followed by a parenthesis or backtick.")
	count(colScriptWords, "script_words", Structure, "Names of browser objects.")
	count(colXML, "xml", Structure, "XML declarations, CDATA sections and XML words after <! or <?.")
	count(colXMLEntity, "xml_entity", Structure, "Entity and document type declarations.")
	count(colTemplate, "template", Structure, "Openings of template expressions: {{, {%, <%, #{ and *{.")
	count(colDollarBrace, "dollar_brace", Structure, "Openings of the form ${.")
	count(colLookup, "lookup", Structure, "The word jndi, or lookups nested in ${.")
	count(colCodeCalls, "code_calls", Structure, "Functions of server-side languages that run code, followed by a parenthesis or quote.")
	count(colCodeOpen, "code_open", Structure, "Openings of server-side code: <?php, <?=.")
	count(colSerialized, "serialized", Structure, "Headers of serialised PHP and Java objects.")
	count(colLDAP, "ldap", Structure, "Places where an LDAP filter is closed or opened early.")
	count(colFormat, "format", Structure, "Format directives of printf that read or write memory.")
	log8(colSled, "sled", Structure, "Bytes of the decoded payload with the value 0x90 right after another.")
	count(colCalls, "calls", Structure, "Words directly followed by an opening parenthesis.")
	flag(colSignShell, "sign_shell", Structure, "The payload shows a sure sign of shell commands.")
	flag(colSignTraversal, "sign_traversal", Structure, "The payload shows a sure sign of climbing to foreign files.")
	flag(colSignMarkup, "sign_markup", Structure, "The payload shows a sure sign of scripts for browsers.")
	flag(colSignCode, "sign_code", Structure, "The payload shows a sure sign of server-side code, templates or lookups.")
	count(colFamilies, "families", Structure, "Attack families with a sure sign anywhere in the payload, out of twelve: SQL, shell, traversal, markup, server-side request, XML, template, code, header, null byte, LDAP, overflow.")
	count(colPartFamilies, "part_families", Structure, "Largest number of attack families with a sure sign in one path segment or value.")

	for i := range wordColumns {
		set(colWord0+column(i), "word_"+strconv.Itoa(i), Token, "count", maxToken,
			"Words of the payload, digit runs written 0, whose xxhash64 falls in bucket "+strconv.Itoa(i)+" of "+strconv.Itoa(wordColumns)+".")
	}
	for i := range kindColumns {
		set(colKind0+column(i), "kind_"+strconv.Itoa(i), Token, "count", maxToken,
			"Triples of neighbouring token kinds whose xxhash64 falls in bucket "+strconv.Itoa(i)+" of "+strconv.Itoa(kindColumns)+".")
	}
	for i := range gramColumns {
		set(colGram0+column(i), "gram_"+strconv.Itoa(i), Token, "count", maxToken,
			"Triples of neighbouring characters, digits written 0, whose xxhash64 falls in bucket "+strconv.Itoa(i)+" of "+strconv.Itoa(gramColumns)+".")
	}

	count(colScriptHits, "script_hits", Lexical, "Path segments that are the name of a script known from exploit titles.")
	count(colParameterHits, "parameter_hits", Lexical, "Parameter names known from exploit titles.")
	count(colPairHits, "pair_hits", Lexical, "Parameter names known from exploit titles in a request for a script known from them.")
	flag(colPortHit, "port_hit", Lexical, "The destination port is known from exploits.")

	log8(colPort, "port", Ports, "Destination port; 0 when unknown.")
	flag(colPortWeb, "port_web", Ports, "The port is one that web servers and proxies use.")
	flag(colPortShell, "port_shell", Ports, "The port is one of SSH or Telnet.")
	flag(colPortMail, "port_mail", Ports, "The port is one of mail transfer or access.")
	flag(colPortData, "port_data", Ports, "The port is one of a database or cache.")
	flag(colPortDesk, "port_desk", Ports, "The port is one of file sharing, remote desktop or remote procedure calls.")
	flag(colProtocolWeb, "protocol_web", Ports, "The protocol is HTTP or HTTPS.")
	flag(colProtocolShell, "protocol_shell", Ports, "The protocol is SSH or Telnet.")

	flag(colAddressV4, "address_v4", Address, "The source is an IPv4 address.")
	flag(colAddressV6, "address_v6", Address, "The source is an IPv6 address.")
	flag(colAddressReserved, "address_reserved", Address, "The source is private, loopback, link-local, shared, multicast, documentation or otherwise not global.")
	set(colAddressOctet1, "address_octet1", Address, "octet", 255, "First octet of an IPv4 source.")
	set(colAddressOctet2, "address_octet2", Address, "octet", 255, "Second octet of an IPv4 source.")
	set(colAddressHextet1, "address_hextet1", Address, "hextet", 65535, "First 16 bits of an IPv6 source.")
	set(colAddressHextet2, "address_hextet2", Address, "hextet", 65535, "Second 16 bits of an IPv6 source.")

	flag(colHasHistory, "has_history", History, "The source has an earlier event.")
	log8(colEvents, "events", History, "Earlier events.")
	log8(colEvents5m, "events_5m", History, "Earlier events in the last five minutes, by whole half minutes.")
	log8(colEvents1h, "events_1h", History, "Earlier events in the last hour, by whole five minutes.")
	log8(colFailed, "failed", History, "Earlier log-ins that failed.")
	log8(colFailed1h, "failed_1h", History, "Log-ins that failed in the last hour, by whole five minutes.")
	log8(colSucceeded, "succeeded", History, "Earlier log-ins that succeeded.")
	share(colFailedShare, "failed_share", History, "Share of failures among earlier log-ins with an outcome.")
	set(colPaths, "paths", History, "count", pathBits, "Set bits of a 128-bit sketch of the distinct paths asked for.")
	set(colUsers, "users", History, "count", 64, "Set bits of a 64-bit sketch of the distinct account names tried.")
	set(colPortsTried, "ports", History, "count", 64, "Set bits of a 64-bit sketch of the distinct ports.")
	set(colAgents, "agents", History, "count", 32, "Set bits of a 32-bit sketch of the distinct user agents.")
	log8(colSinceFirst, "since_first", History, "Seconds since the first event.")
	log8(colSinceLast, "since_last", History, "Milliseconds since the last earlier event.")
	log8(colIntervalMean, "interval_mean", History, "Mean of the milliseconds between earlier events, each counted as at most an hour.")
	log8(colIntervalDeviation, "interval_deviation", History, "Standard deviation of the same, rounded down.")
	log8(colClientErrors, "client_errors", History, "Earlier events answered with a status of 400 to 499.")
	share(colClientErrorShare, "client_error_share", History, "Share of those among earlier events with a status.")
	log8(colMarked, "marked", History, "Earlier events with a sure sign of an attack.")
	share(colMarkedShare, "marked_share", History, "Share of those among earlier events.")
	return c
}

// ForClassifier returns the columns that the classifier of threats may use,
// ascending: what was asked and how the source behaved, never who it is. A
// model that knows addresses learns the sites it was trained on; one that knows
// whether method, status and size were recorded learns which kind of log each
// class came from.
func ForClassifier() []int {
	return slices.DeleteFunc(allowed(Shape, Chars, Structure, Token, Lexical, Ports, History), func(i int) bool {
		switch c := column(i); {
		case c >= colMethodGet && c <= colRefererLength, c == colPort, c == colPortWeb, c == colProtocolWeb:
			return true
		}
		return false
	})
}

// ForAnomaly returns the columns that the anomaly detector may use, ascending:
// as for the classifier, since an unusual address is no unusual behaviour.
func ForAnomaly() []int { return allowed(Shape, Chars, Structure, Token, Lexical, Ports, History) }

// ForReputation returns the columns that the reputation of an address may use,
// ascending: the address and its history. With the content of the current
// event it would judge the event, not the source.
func ForReputation() []int { return allowed(Address, History) }

func allowed(groups ...Group) []int {
	var out []int
	for i, c := range Columns {
		for _, g := range groups {
			if c.Group == g {
				out = append(out, i)
			}
		}
	}
	return out
}
