package record

import "bytes"

// target reads one line of a list of request targets, such as a recorded scan.
// The whole line is the target: attacks begin and end with spaces too.
func (r *Reader) target(row []byte, rec *Record) verdict {
	if bytes.IndexByte(row, 0) >= 0 {
		return bad("not a line of text", "it holds a NUL byte")
	}
	rec.Protocol = "http"
	rec.Payload = string(row)
	return verdict{}
}
