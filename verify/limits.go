package verify

import (
	"time"

	"github.com/battle-hardened-ai/bhtrain/oras"
)

// Limits on what is read. Package oras bounds what a store may send; these
// bound what is parsed of it.
const (
	// maxStatement bounds the payload of a signature, in bytes: a provenance of a
	// thousand inputs is about 200 KiB.
	maxStatement = 256 << 10

	// maxChannelStatement bounds that of a channel, in bytes: the most that fits,
	// in Base64, into a bundle.
	maxChannelStatement = oras.MaxBundle / 4 * 3

	// maxSubjects bounds the subjects of a statement. A release has one; more would
	// let one signature speak for anything.
	maxSubjects = 64

	// maxRevocations bounds the revocations in a channel. One signed with a key
	// has about 1.3 KiB, so some 500 fit into a bundle.
	maxRevocations = 512

	// maxReason bounds the reason of a revocation, in bytes: it is printed whole.
	maxReason = maxText

	// maxTables bounds the tables of a dataset statement. Datasets have two.
	maxTables = 16

	// maxPolicy bounds a policy's text in bytes: it is written by hand.
	maxPolicy = 64 << 10

	// maxKeyFile bounds a key file, in bytes. A P-256 key in PEM is under 200.
	maxKeyFile = 16 << 10

	// maxRootFile bounds a trusted root, in bytes. That of the public instance
	// has about 7 KiB, and grows by one each year.
	maxRootFile = 1 << 20

	// maxValues bounds the members and elements of a bundle's JSON. One with a
	// certificate, a time stamp and a log entry has about 60, with 32 entries under
	// 4,000; each costs some hundred times the three bytes that it can be written in.
	maxValues = 8192

	// maxIdentities bounds the identities of one role: each bundle is tried with
	// each key.
	maxIdentities = 32

	// maxOperators bounds the rebuilders of a policy. Each has its own places to
	// look at, which are asked one after the other.
	maxOperators = 32

	// maxPlaces bounds the places of one rebuilder.
	maxPlaces = 4

	// maxList bounds the entries of any other list.
	maxList = 1024

	// maxName bounds what people call a product, a publisher or an operator, in bytes.
	maxName = 128

	// maxURI bounds a URI in a policy, in bytes.
	maxURI = 1024

	// maxTimestamps bounds how many time stamps or log entries a policy may demand.
	// Sigstore's own verifier looks at 32 of each.
	maxTimestamps = 8

	// maxKept bounds what is kept of a TUF repository, in bytes, Base64 included:
	// each file of it is at most maxRootFile, and there are a handful.
	maxKept = 16 << 20

	// tufTimeout bounds one download from a TUF repository.
	tufTimeout = 30 * time.Second

	// maxSkew is how far the clocks of those who sign and of this machine may be
	// apart.
	maxSkew = 5 * time.Minute

	// maxBundlesGiven bounds the bundles given by hand.
	maxBundlesGiven = 256
)
