package dataset

// Column is a column of a table, as FORMAT.md §3 defines it.
type Column struct {
	Name string
	Type string // of Arrow: "int64", "int32" or "utf8"
	Doc  string // what its values are, in words
}

// Columns returns the columns of the table that snapshot.json lists under
// this name, in their order, or nil when there is no such table.
func Columns(name string) []Column {
	for i, t := range tables {
		if t.name != name {
			continue
		}
		columns := make([]Column, len(t.columns))
		for j, c := range t.columns {
			columns[j] = Column{
				Name: c.name, Doc: columnDocs[i][j],
				Type: [...]string{int64Column: "int64", int32Column: "int32", textColumn: "utf8"}[c.typ],
			}
		}
		return columns
	}
	return nil
}

// columnDocs has one text for each column of each table, in their order.
var columnDocs = [...][]string{
	{
		"Number of the exploit in ExploitDB (EDB id).",
		"Index that the row came from: 1 of 17 columns, 2 of 8 columns.",
		"Path of the exploit in the Exploit-DB repository.",
		"Title.",
		"Author.",
		"Type, such as webapps, remote, local, dos or shellcode.",
		"Platform.",
		"Destination port, 0 when not known.",
		"Day of publication in days since 1970-01-01, -2^63 when not known.",
		"Day of addition to the index in days since 1970-01-01, -2^63 when not known.",
		"Day of the last change in days since 1970-01-01, -2^63 when not known.",
		"1 when the exploit was verified, else 0.",
		"Identifiers such as CVE numbers, as the index has them.",
		"Tags, as the index has them.",
	},
	{
		"Site that shared the record, empty for files without one.",
		"Instant of the event in microseconds since 1970-01-01 UTC, -2^63 when undated.",
		"Source address, in the form that snapshot.json names; empty when not known.",
		"Kind of input that the record was read from.",
		"Identifier that the sensor gave to the event.",
		"Protocol, in lower case.",
		"Destination port, 0 when not known.",
		"Request method, in upper case.",
		"What was sent: request line, command, message or title.",
		"User agent.",
		"Referer.",
		"Account name that was tried.",
		"Status of the answer, 0 when there was none.",
		"Size of the answer in bytes.",
		"Outcome of a log-in: 0 unknown, 1 success, 2 failure.",
		"Class of the event as the source names it.",
		"Level: 0 unknown, 1 safe, 2 info, 3 warning, 4 suspicious, 5 dangerous, 6 critical.",
		"EDB id of the exploit that the payload was taken from, 0 for none.",
	},
}
