package oras

import "time"

// Limits on what is read, so that no store can exhaust memory, disk or time.
// A size is checked as it is declared, before a byte is read, and again by
// the reader.
const (
	// MaxManifest bounds any manifest or index, in bytes: the 4 MiB that
	// registries themselves accept at most (CNCF distribution).
	MaxManifest = 4 << 20

	// MaxOwnManifest bounds the manifest of a release, a dataset or a bundle,
	// in bytes. Ours are about 2 KiB; annotations of other signers add little.
	MaxOwnManifest = 64 << 10

	// MaxConfig bounds a release's ModelPack config and a dataset's
	// snapshot.json, in bytes. Both are below 1 KiB.
	MaxConfig = 16 << 10

	// MaxReleaseJSON bounds release.json, in bytes. The lexicon is most of
	// it; it is itself bounded by the feature schema.
	MaxReleaseJSON = 512 << 10

	// MaxModel bounds one model file, in bytes. All four are meant to stay
	// below 280 KiB together; the rest is room for other recipes.
	MaxModel = 1 << 20

	// MaxDatasetFile bounds one Arrow file of a dataset, in bytes. A hundred
	// million records fit; a store cannot make a reader fill an arbitrary disk.
	MaxDatasetFile = 32 << 30

	// MaxFileList bounds files.json of a dataset, in bytes; it has two entries.
	MaxFileList = 16 << 10

	// MaxBundle bounds one Sigstore bundle, in bytes. A keyless bundle with
	// timestamp and log entry has about 6 KiB; provenance that lists many
	// inputs can have some hundred KiB. Bundles are never inflated.
	MaxBundle = 1 << 20

	// MaxBundles bounds all bundles read for one subject, in bytes, since
	// they are held in memory together. With them a verifier stays below 64 MiB.
	MaxBundles = 8 << 20

	// MaxDocument bounds one document of Attach, in bytes: a model card or a
	// bill of materials. Ours have some ten KiB.
	MaxDocument = 4 << 20

	// MaxReferrers is how many referrers of one subject are looked at. A
	// release has a handful; past this, the listing is reported as incomplete,
	// since junk could hide the good one.
	MaxReferrers = 64

	// MaxReferrerPages bounds the pages of a referrers listing that are
	// followed. Registries send 100 entries and more in a page.
	MaxReferrerPages = 8

	// MaxCopyBlob bounds one blob of a referrer that Copy takes along, in
	// bytes: model cards and bills of materials, not only bundles.
	MaxCopyBlob = 16 << 20

	// maxLayoutScan is how many untagged manifests of a layout's index.json
	// are opened in search of referrers.
	maxLayoutScan = 1024

	// maxAnswer bounds the body of any answer for which no other limit holds
	// (errors, tokens, the version check), in bytes.
	maxAnswer = 64 << 10

	// maxMessage bounds how much of a registry's own words is repeated in an
	// error, in bytes.
	maxMessage = 240

	// maxRedirects is how many redirects of one request are followed. Blob
	// stores use one, some content networks two.
	maxRedirects = 4
)

// Time limits. A blob must bring minRate in each span of the timeout, so one of n
// bytes takes at most timeout + n/minRate; all else must be whole within the
// timeout. The deadline for everything together is the caller's context.
const (
	defaultTimeout = 60 * time.Second
	minRate        = 16 << 10 // bytes per second
	dialTimeout    = 10 * time.Second

	// A request that failed for a passing reason is sent again after
	// firstPause, then after four times that.
	attempts   = 3
	firstPause = 250 * time.Millisecond
	maxPause   = 10 * time.Second // of a Retry-After

	// listAttempts is how often the index at a fallback tag is written until an
	// entry stays in it. Of n writers at once at least one succeeds each time.
	listAttempts = 24
)
