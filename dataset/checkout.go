package dataset

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/battle-hardened-ai/bhtrain/dataset/record"
)

// textFolders are the folders of a checkout of the Exploit-DB repository that
// hold the texts of exploits, and the indexes that name them.
var textFolders = [...]struct{ folder, index string }{
	{"platforms", "files.csv"},
	{"exploits", "files_exploits.csv"},
}

// checkout reads the requests that the texts of one index show, exploit by
// exploit in the order of the index. Only files that the index names are opened,
// and nothing outside the folder.
type checkout struct {
	root   *os.Root
	folder string
	index  *exploitReader
	opt    record.Options

	exploit Exploit // whose requests are handed out
	line    int64   // of it in the index
	queue   []foundRequest
	buf     bytes.Buffer

	sums   hash.Hash // of the lines "hex digest of a text, two spaces, its path"
	size   int64     // bytes of texts
	tally  tally
	report record.Report
}

// next reads the next request into r. It returns io.EOF at the end; any other
// error is one of reading.
func (c *checkout) next(r *record.Record) error {
	for len(c.queue) == 0 {
		if err := c.index.next(&c.exploit); err != nil {
			return err
		}
		c.line = c.index.at
		reason, err := c.read()
		if err != nil {
			return err
		}
		if reason == "" && len(c.queue) == 0 {
			reason = "no request in the text"
		}
		if reason != "" {
			c.report.Rows++
			c.tally.skipped.add(reason, c.line)
		}
	}
	found := c.queue[0]
	c.queue = c.queue[1:]
	if !utf8.ValidString(found.target) {
		c.tally.quirks.add("invalid UTF-8 replaced", c.line)
		found.target = strings.ToValidUTF8(found.target, "\ufffd")
	}
	*r = record.Record{
		Time: record.NoTime, Kind: record.Requests, Protocol: "http",
		Method: found.method, Payload: found.target, Exploit: c.exploit.ID,
	}
	c.opt.Complete(r, func(class string) { c.tally.quirks.add(class, c.line) })
	c.report.Rows++
	c.report.Kept++
	c.report.Undated++
	return nil
}

// read puts the requests of the exploit's text into the queue, or says why the
// text is left out.
func (c *checkout) read() (reason string, err error) {
	if c.exploit.Type != "webapps" && c.exploit.Type != "remote" {
		return "another type than webapps and remote", nil
	}
	if !isTextPath(c.exploit.File, c.folder, c.exploit.ID) {
		return "path is not " + c.folder + "/PLATFORM/TYPE/ID.EXT", nil
	}
	name := filepath.FromSlash(c.exploit.File)
	info, err := c.root.Lstat(name)
	if err == nil && !info.Mode().IsRegular() {
		return "not a regular file", nil
	}
	var f *os.File
	if err == nil {
		f, err = c.root.Open(name)
	}
	if errno := syscall.Errno(0); err != nil {
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
			return "no such file", nil
		case errors.As(err, &errno):
			return "", err
		}
		return "outside the folder", nil // os.Root has no error of the system for it
	}
	defer f.Close()
	c.buf.Reset()
	if _, err := c.buf.ReadFrom(io.LimitReader(f, maxTextBytes+1)); err != nil {
		return "", err
	}
	text := c.buf.Bytes()
	if len(text) > maxTextBytes {
		return "longer than 1 MiB", nil
	}
	sum := sha256.Sum256(text)
	fmt.Fprintf(c.sums, "%s  %s\n", hex.EncodeToString(sum[:]), c.exploit.File)
	c.size += int64(len(text))
	if bytes.IndexByte(text, 0) >= 0 {
		return "not a text", nil
	}
	var more bool
	c.queue, more = extractRequests(text)
	if more {
		c.tally.quirks.add(fmt.Sprintf("more than %d requests, the rest left out", maxTextRequests), c.line)
	}
	return "", nil
}

// isTextPath reports whether name is folder/PLATFORM/TYPE/ID or that with an
// extension: letters, digits, '.', '_', '-' and '+' only, no part of dots.
func isTextPath(name, folder string, id int64) bool {
	parts := strings.Split(name, "/")
	if len(parts) != 4 || parts[0] != folder || len(name) > 200 {
		return false
	}
	for _, p := range parts {
		if strings.Trim(p, ".") == "" || strings.ContainsFunc(p, func(r rune) bool {
			return r >= 0x80 || !isAlnum(byte(r)) && !strings.ContainsRune("._-+", r)
		}) {
			return false
		}
	}
	return strings.TrimSuffix(parts[3], path.Ext(parts[3])) == strconv.FormatInt(id, 10)
}

// finish returns the report; call it after the last request.
func (c *checkout) finish() record.Report {
	c.report.Skipped = c.tally.skipped.sorted()
	c.report.Bad = []record.Count{}
	c.report.Quirks = c.tally.quirks.sorted()
	return c.report
}
