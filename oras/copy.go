package oras

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sync"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// CopyOptions say what Copy takes along with a release.
type CopyOptions struct {
	// WithoutDataset leaves the dataset behind. Agents need none; whoever
	// rebuilds the release does.
	WithoutDataset bool

	// Tags are set on the release at the end, beside its ReleaseTag.
	Tags []string
}

// CopyReport says what Copy did beside the release and its dataset.
type CopyReport struct {
	Referrers int      // copied, of the release and of the dataset
	Skipped   []string // referrers left behind: which and why, one line each
	Complete  bool     // false when the source may have more referrers
}

// Copy copies the release whose manifest has digest d from src to dst: its
// dataset, the release, what refers to either, the tags of their statements,
// and last the tags of opt. All of it is checked as Pull and PullDataset check
// it. Files of the dataset are streamed.
//
// If dst has the dataset in another encoding, its DatasetTag moves to that of src.
//
// A release that names a dataset which src does not have is ErrNotFound. What
// stands under the tag of a statement must be one that can be copied: without
// it the release would arrive unsigned, so that fails before the tags of opt are
// set.
// Another release with that number in dst is ErrExists, and so is a tag of opt
// that belongs to something else by its form.
func Copy(ctx context.Context, dst, src Store, d canon.Digest, opt CopyOptions) (*CopyReport, error) {
	a, err := Pull(ctx, src, d)
	if err != nil {
		return nil, err
	}
	if err := tagFree(ctx, dst, ReleaseTag(a.Release.Number), a.Digest); err != nil {
		return nil, err
	}
	for _, tag := range opt.Tags {
		if ownTag().MatchString(tag) && tag != ReleaseTag(a.Release.Number) {
			return nil, fmt.Errorf("%s: tag %s %w for something else: this is release %d, choose another tag", dst, tag, ErrExists, a.Release.Number)
		}
	}
	report := &CopyReport{Complete: true}
	if !opt.WithoutDataset {
		data, err := copyDataset(ctx, dst, src, a.Release.Dataset)
		if err != nil {
			return nil, err
		}
		if err := copyReferrers(ctx, dst, src, data, report, DatasetStatementTag(data)); err != nil {
			return nil, err
		}
	}
	if err := Push(ctx, dst, a); err != nil {
		return nil, err
	}
	if err := copyReferrers(ctx, dst, src, d, report, ProvenanceTag(d)); err != nil {
		return nil, err
	}
	for _, tag := range opt.Tags {
		if err := dst.Tag(ctx, tag, a.Descriptor()); err != nil {
			return nil, err
		}
	}
	return report, nil
}

// ownTag is the form of the tags that stand for one thing only.
var ownTag = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(release-[0-9]+|channel-.*|dataset-[0-9a-f]{64}|sha256-[0-9a-f]{64}(\..*)?)$`)
})

// copyDataset copies the artifact of the dataset with digest snapshot, and
// returns the digest of its manifest.
func copyDataset(ctx context.Context, dst, src Store, snapshot canon.Digest) (canon.Digest, error) {
	m, b, err := findDataset(ctx, src, DatasetTag(snapshot))
	if err != nil {
		return canon.Digest{}, err
	}
	for _, l := range append([]Descriptor{m.Config}, m.Layers...) {
		if err := copyBlob(ctx, dst, src, l); err != nil {
			return canon.Digest{}, err
		}
	}
	d, err := dst.PutManifest(ctx, b)
	if err != nil {
		return d.Digest, err
	}
	return d.Digest, dst.Tag(ctx, DatasetTag(snapshot), d)
}

func copyBlob(ctx context.Context, dst, src Store, d Descriptor) error {
	return dst.PutBlob(ctx, d, func() (io.ReadCloser, error) { return src.Blob(ctx, d) })
}

// copyReferrers copies the referrers of subject, and tags in dst what tag
// stands for in src if that is one of them.
func copyReferrers(ctx context.Context, dst, src Store, subject canon.Digest, report *CopyReport, tag string) error {
	list, complete, err := src.Referrers(ctx, subject)
	if err != nil {
		return err
	}
	report.Complete = report.Complete && complete
	tagged, err := src.Resolve(ctx, tag)
	switch {
	case err == nil:
		all := referrerList{complete: true}
		all.add(tagged)
		for _, d := range list {
			all.add(d)
		}
		list = all.list
		report.Complete = report.Complete && all.complete
	case !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrInvalid):
		return err
	}
	for _, d := range list {
		copied, err := copyReferrer(ctx, dst, src, subject, d)
		switch {
		case err == nil:
			report.Referrers++
			if copied.Digest == tagged.Digest {
				if err := dst.Tag(ctx, tag, copied); err != nil {
					return err
				}
			}
		case errors.Is(err, errSkip) && d.Digest == tagged.Digest:
			return fmt.Errorf("%s: what stands under the tag %s: %w", src, tag, err)
		case errors.Is(err, errSkip):
			report.Skipped = append(report.Skipped, fmt.Sprintf("%s: %s", d.Digest, printable(err.Error(), 2*maxMessage)))
		default:
			return err
		}
	}
	return nil
}

// errSkip: a referrer in the source is not what it should be, which is not the
// fault of the copy.
var errSkip = errors.New("left behind")

func copyReferrer(ctx context.Context, dst, src Store, subject canon.Digest, d Descriptor) (Descriptor, error) {
	skip := func(err error) (Descriptor, error) {
		if ctx.Err() != nil {
			return d, err
		}
		return d, fmt.Errorf("%w: %w", errSkip, err)
	}
	if d.Size > MaxOwnManifest {
		return skip(fmt.Errorf("%w: manifest has %d bytes, limit %d", ErrInvalid, d.Size, MaxOwnManifest))
	}
	b, err := src.Manifest(ctx, Descriptor{Digest: d.Digest, Size: d.Size})
	if err != nil {
		return skip(err)
	}
	m, err := decodeManifest(b)
	if err != nil {
		return skip(err)
	}
	if m.Subject == nil || m.Subject.Digest != subject {
		return skip(fmt.Errorf("%w: it does not refer to %s", ErrInvalid, subject))
	}
	if len(m.Layers) > len(ModelFiles)+1 {
		return skip(fmt.Errorf("%w: it has %d layers", ErrInvalid, len(m.Layers)))
	}
	for _, l := range append([]Descriptor{m.Config}, m.Layers...) {
		data, err := readBlob(ctx, src, l, MaxCopyBlob)
		if err != nil {
			return skip(err)
		}
		if err := putBytes(ctx, dst, l, data); err != nil {
			return d, err
		}
	}
	return dst.PutManifest(ctx, b)
}
