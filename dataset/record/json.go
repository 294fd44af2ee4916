package record

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// member is a name that some JSON format gives a meaning to. Names that are
// not here are skipped without being copied; passwords are among those.
type member uint8

const (
	mNone member = iota
	mAgent
	mAttackerInput
	mAttackType
	mBody
	mDetails
	mDstIP
	mDstPort
	mEDB
	mEndpoint
	mEvent
	mEventID
	mFilename
	mHoneypotPort
	mHTTPRequest
	mInput
	mIP
	mIPAddress
	mKind
	mLevel
	mMessage
	mMethod
	mOutcome
	mPath
	mPayload
	mPort
	mProtocol
	mQuery
	mReferer
	mRequest
	mService
	mSession
	mSeverity
	mSite
	mSize
	mSourceIP
	mSrcIP
	mStatus
	mSystem
	mThreatID
	mThreatType
	mTime
	mURI
	mURL
	mUser
	mUsername
	mVersion
	members
)

func memberOf(name []byte) member {
	switch string(name) {
	case "user_agent":
		return mAgent
	case "attacker_input":
		return mAttackerInput
	case "attack_type":
		return mAttackType
	case "details":
		return mDetails
	case "dst_ip":
		return mDstIP
	case "dst_port":
		return mDstPort
	case "edb_id":
		return mEDB
	case "endpoint":
		return mEndpoint
	case "event":
		return mEvent
	case "eventid":
		return mEventID
	case "filename":
		return mFilename
	case "honeypot_port":
		return mHoneypotPort
	case "input":
		return mInput
	case "ip":
		return mIP
	case "ip_address":
		return mIPAddress
	case "kind":
		return mKind
	case "level":
		return mLevel
	case "method":
		return mMethod
	case "outcome":
		return mOutcome
	case "payload":
		return mPayload
	case "port":
		return mPort
	case "protocol":
		return mProtocol
	case "referer":
		return mReferer
	case "service_name":
		return mService
	case "session":
		return mSession
	case "severity":
		return mSeverity
	case "site":
		return mSite
	case "size":
		return mSize
	case "source_ip":
		return mSourceIP
	case "src_ip":
		return mSrcIP
	case "status":
		return mStatus
	case "system":
		return mSystem
	case "threat_id":
		return mThreatID
	case "threat_type":
		return mThreatType
	case "timestamp":
		return mTime
	case "url":
		return mURL
	case "user":
		return mUser
	case "username":
		return mUsername
	case "version":
		return mVersion
	}
	return mNone
}

// textOf returns the further names of the text of an attack record. In other
// formats they mean other things: Cowrie writes passwords into "message".
func textOf(name []byte) member {
	switch string(name) {
	case "body":
		return mBody
	case "http_request":
		return mHTTPRequest
	case "message":
		return mMessage
	case "path":
		return mPath
	case "query":
		return mQuery
	case "request":
		return mRequest
	case "uri":
		return mURI
	}
	return mNone
}

// object is one parsed JSON object: the scalars of its known members.
type object struct {
	attack bool // it is an attack record, whose text has more names

	dec   jsontext.Decoder
	src   bytes.Buffer
	arena []byte // unquoted texts and numbers, one behind the other
	value [members]scalar
	// what was odd about it
	twice, typed, surrogate bool
	unknown                 bool // there are members without a meaning
}

type scalar struct {
	kind     jsontext.Kind // '"', '0', 'n', 't', 'f', or 0 when absent
	from, to int32         // in arena
}

// read parses row into o. Of a name given twice the last value counts, as
// for the programs that write these files.
func (o *object) read(row []byte) verdict {
	o.value = [members]scalar{}
	o.arena = o.arena[:0]
	o.twice, o.typed, o.surrogate, o.unknown = false, false, false, false
	o.src = *bytes.NewBuffer(row)
	d := &o.dec
	// Invalid UTF-8 here is half a surrogate pair in an escape.
	d.Reset(&o.src, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	switch kind := d.PeekKind(); kind {
	case '{':
		if _, err := d.ReadToken(); err != nil {
			return badJSON(err)
		}
	case 0:
		_, err := d.ReadToken()
		return badJSON(err)
	default:
		if err := d.SkipValue(); err != nil {
			return badJSON(err)
		}
		return bad("not an object", "JSON "+kind.String())
	}
	for d.PeekKind() != '}' {
		name, err := d.ReadValue()
		if err != nil {
			return badJSON(err)
		}
		m := o.member(name)
		if m == mNone {
			o.unknown = true
			if err := d.SkipValue(); err != nil {
				return badJSON(err)
			}
			continue
		}
		v, err := d.ReadValue()
		if err != nil {
			return badJSON(err)
		}
		if o.value[m].kind != 0 {
			o.twice = true
		}
		from := len(o.arena)
		switch v.Kind() {
		case '"':
			if o.arena, err = jsontext.AppendUnquote(o.arena, v); err != nil {
				o.surrogate = true
			}
		case '0':
			o.arena = append(o.arena, v...)
		case 'n':
		default:
			o.typed = true
		}
		o.value[m] = scalar{v.Kind(), int32(from), int32(len(o.arena))}
	}
	if _, err := d.ReadToken(); err != nil {
		return badJSON(err)
	}
	if rest := bytes.TrimSpace(row[d.InputOffset():]); len(rest) > 0 {
		return bad("text after the JSON value", quote(string(rest)))
	}
	return verdict{}
}

// member returns what a quoted name stands for.
func (o *object) member(quoted []byte) member {
	from := len(o.arena)
	name := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(quoted, '\\') >= 0 {
		o.arena, _ = jsontext.AppendUnquote(o.arena, quoted) // valid: it was just read
		name = o.arena[from:]
	}
	m := memberOf(name)
	if m == mNone && o.attack {
		m = textOf(name)
	}
	o.arena = o.arena[:from]
	return m
}

func badJSON(err error) verdict {
	if errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF {
		return bad("cut short", "the JSON value does not end")
	}
	return bad("not JSON", detail(err))
}

// detail makes a message of another package, which may quote the input, fit
// to be shown.
func detail(err error) string {
	b := cut([]byte(strings.TrimPrefix(err.Error(), "jsontext: ")), 120)
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}

// has reports whether a member is there, null included.
func (o *object) has(m member) bool { return o.value[m].kind != 0 }

// text returns a member that is a string or a number, else nothing.
func (o *object) text(m member) []byte { return o.arena[o.value[m].from:o.value[m].to] }

// first returns the first of the members that is not empty.
func (o *object) first(ms ...member) []byte {
	for _, m := range ms {
		if b := o.text(m); len(b) > 0 {
			return b
		}
	}
	return nil
}

// object parses row into r.json and notes what was odd.
func (r *Reader) object(row []byte) (*object, verdict) {
	o := &r.json
	if v := o.read(row); v.reason != "" {
		return nil, v
	}
	if o.twice {
		r.note("member given twice")
	}
	if o.typed {
		r.note("member of an unexpected type")
	}
	if o.surrogate {
		r.note(quirkUTF8)
	}
	return o, verdict{}
}

// number returns a member that is an integer from 0 to limit, or the text of
// one, else 0.
func (r *Reader) number(o *object, m member, limit int64) int64 {
	b := o.text(m)
	if len(b) == 0 {
		return 0
	}
	n, ok := parseNumber(b, limit)
	if !ok {
		r.note(quirkRange)
	}
	return n
}

// parseNumber reads a decimal integer from 0 to limit.
func parseNumber(b []byte, limit int64) (int64, bool) {
	n, rest, ok := digits(b, 1, 19)
	if !ok || len(rest) > 0 || n < 0 || n > limit {
		return 0, false
	}
	return n, true
}

const maxInt64 = 1<<63 - 1

// timestamp sets rec.Time from the member that holds it.
func (r *Reader) timestamp(rec *Record, o *object) {
	b := o.text(mTime)
	if len(b) == 0 {
		r.note("no time")
		return
	}
	t, odd, ok := parseTime(b)
	r.time(rec, t, odd, ok)
}

// attack reads a sensor's record, in whichever of the forms that sensors and
// relays write, or AppendJSON's form, which is known by its kind.
func (r *Reader) attack(row []byte, rec *Record) verdict {
	o, v := r.object(row)
	if v.reason != "" {
		return v
	}
	if k := Kind(o.text(mKind)); k.valid() {
		rec.Kind = k
		return r.replay(o, rec)
	}
	class := o.first(mAttackType, mThreatType)
	address := o.first(mSrcIP, mIPAddress, mSourceIP, mIP)
	payload := r.requestText(o)
	if !o.has(mAttackType) && !o.has(mThreatType) && address == nil && payload == nil {
		return bad("no attack record", "it has neither class nor address nor details")
	}
	rec.Label = lower(trim(r.intern(class)))
	switch rec.Label {
	case "", "unknown":
		r.note("no class")
	case "backup_issue", "cloud_misconfiguration", "federated_update_rejected":
		return skip("no network event: " + rec.Label)
	}
	if o.unknown && !o.hasText() {
		r.note("no text understood")
	}
	r.address(rec, address)
	r.timestamp(rec, o)
	rec.Event = string(o.first(mEvent, mThreatID))
	rec.Protocol = r.intern(o.text(mProtocol))
	rec.Port = int32(r.number(o, mPort, 65535))
	rec.Method = r.intern(o.text(mMethod))
	rec.Payload = string(payload)
	rec.Agent = r.intern(o.text(mAgent))
	rec.Referer = string(o.text(mReferer))
	rec.User = r.intern(o.text(mUser))
	r.severity(rec, o)
	return verdict{}
}

// texts are the members that may hold what an attacker sent. The first that is
// not empty is taken: the names of the sensors, then those of other programs.
var texts = [...]member{mPayload, mDetails, mEndpoint, mURI, mURL, mPath, mRequest, mHTTPRequest, mQuery, mBody, mMessage}

// hasText reports whether one of texts is there in a form that is understood,
// be it empty.
func (o *object) hasText() bool {
	for _, m := range texts {
		if k := o.value[m].kind; k == '"' || k == '0' {
			return true
		}
	}
	return false
}

// requestText returns the text of an attack record. To a target that was
// logged apart from its query, the query is joined. The result lasts until the
// next call.
func (r *Reader) requestText(o *object) []byte {
	if o.has(mEventID) { // an event of Cowrie, whose message may hold a password
		o.value[mMessage] = scalar{}
	}
	text := o.first(texts[:]...)
	query := bytes.TrimPrefix(o.text(mQuery), []byte{'?'})
	switch {
	case len(query) == 0, len(o.first(mPayload, mDetails, mEndpoint)) > 0, len(o.first(mURI, mURL, mPath)) == 0, bytes.IndexByte(text, '?') >= 0:
		return text
	}
	r.scratch = append(append(append(r.scratch[:0], text...), '?'), query...)
	return r.scratch
}

// severity sets rec.Level from the first of the two members that is a level.
func (r *Reader) severity(rec *Record, o *object) {
	for _, m := range [...]member{mSeverity, mLevel} {
		if b := o.text(m); len(b) > 0 {
			if rec.Level = ParseLevel(r.intern(b)); rec.Level != LevelUnknown {
				return
			}
			r.note("severity not understood")
		}
	}
}

// replay reads AppendJSON's form.
func (r *Reader) replay(o *object, rec *Record) verdict {
	rec.Site = r.intern(o.text(mSite))
	if o.has(mTime) {
		r.timestamp(rec, o)
	}
	if o.has(mSrcIP) {
		r.address(rec, o.text(mSrcIP))
	}
	rec.Event = string(o.text(mEvent))
	rec.Protocol = r.intern(o.text(mProtocol))
	rec.Port = int32(r.number(o, mPort, 65535))
	rec.Method = r.intern(o.text(mMethod))
	rec.Payload = string(o.text(mPayload))
	rec.Agent = r.intern(o.text(mAgent))
	rec.Referer = string(o.text(mReferer))
	rec.User = r.intern(o.text(mUser))
	rec.Status = int32(r.number(o, mStatus, 599))
	rec.Size = r.number(o, mSize, maxInt64)
	switch string(o.text(mOutcome)) {
	case "success":
		rec.Outcome = OutcomeSuccess
	case "failure":
		rec.Outcome = OutcomeFailure
	}
	rec.Label = r.intern(o.text(mAttackType))
	r.severity(rec, o)
	rec.Exploit = r.number(o, mEDB, maxInt64)
	return verdict{}
}

// honeypot reads what a persona of the sensors' own honeypot was sent. The
// source port, the banner and the analysis are left out.
func (r *Reader) honeypot(row []byte, rec *Record) verdict {
	o, v := r.object(row)
	if v.reason != "" {
		return v
	}
	address := o.first(mSourceIP, mSrcIP, mIPAddress, mIP)
	if address == nil && !o.has(mAttackerInput) {
		return bad("no honeypot record", "it has neither source_ip nor attacker_input")
	}
	r.address(rec, address)
	r.timestamp(rec, o)
	rec.Protocol = r.intern(o.text(mService))
	rec.Port = int32(r.number(o, mHoneypotPort, 65535))
	rec.Payload = string(o.text(mAttackerInput))
	return verdict{}
}

// cowrie reads one event of the Cowrie honeypot. Label is the event's name.
// Left out are events that only repeat another (a command that failed was
// input before, a session that closes was opened), that say nothing of the
// source, and what went through a forwarded connection, which is addressed to
// somebody else and may hold their passwords.
func (r *Reader) cowrie(row []byte, rec *Record) verdict {
	o, v := r.object(row)
	if v.reason != "" {
		return v
	}
	event := o.text(mEventID)
	switch string(event) {
	case "":
		return bad("no Cowrie event", "it has no eventid")
	case "cowrie.session.connect":
		rec.Port = int32(r.number(o, mDstPort, 65535))
	case "cowrie.client.version":
		rec.Agent = r.intern(o.text(mVersion))
	case "cowrie.login.failed":
		rec.User, rec.Outcome = r.intern(o.text(mUsername)), OutcomeFailure
	case "cowrie.login.success":
		rec.User, rec.Outcome = r.intern(o.text(mUsername)), OutcomeSuccess
	case "cowrie.command.input":
		rec.Payload = string(o.text(mInput))
	case "cowrie.direct-tcpip.request":
		rec.Payload = r.intern(r.hostPort(o.text(mDstIP), o.text(mDstPort)))
	case "cowrie.session.file_download", "cowrie.session.file_download.failed":
		rec.Payload = r.intern(o.text(mURL))
	case "cowrie.session.file_upload":
		rec.Payload = r.intern(o.text(mFilename))
	case "cowrie.session.closed", "cowrie.session.params",
		"cowrie.client.size", "cowrie.client.var", "cowrie.client.kex",
		"cowrie.command.failed", "cowrie.command.success", "cowrie.direct-tcpip.data",
		"cowrie.log.open", "cowrie.log.closed":
		return skip(r.intern(event))
	default:
		return skip("other Cowrie event")
	}
	r.address(rec, o.text(mSrcIP))
	r.timestamp(rec, o)
	rec.Event = string(o.text(mSession))
	rec.Label = r.intern(event)
	switch {
	case o.has(mProtocol):
		rec.Protocol = r.intern(o.text(mProtocol))
	case bytes.Contains(o.text(mSystem), []byte("Telnet")):
		rec.Protocol = "telnet"
	default:
		rec.Protocol = "ssh"
	}
	return verdict{}
}

// hostPort joins a host and a port as in a URL. The result lasts until the
// next call.
func (r *Reader) hostPort(host, port []byte) []byte {
	b := r.scratch[:0]
	if bytes.IndexByte(host, ':') >= 0 {
		b = append(append(append(b, '['), host...), ']')
	} else {
		b = append(b, host...)
	}
	r.scratch = append(append(b, ':'), port...)
	return r.scratch
}

// request reads one request string taken from the text of an exploit.
func (r *Reader) request(row []byte, rec *Record) verdict {
	o, v := r.object(row)
	if v.reason != "" {
		return v
	}
	id, ok := parseNumber(o.text(mEDB), maxInt64)
	if !ok || id == 0 {
		return bad("no exploit request", "edb_id "+quote(string(o.text(mEDB)))+" is no positive integer")
	}
	if len(o.text(mURL)) == 0 {
		return bad("no exploit request", "it has no url")
	}
	rec.Exploit = id
	rec.Method = r.intern(o.text(mMethod))
	rec.Payload = string(o.text(mURL))
	rec.Protocol = "http"
	return verdict{}
}

func cut(b []byte, n int) []byte { return b[:min(n, len(b))] }
