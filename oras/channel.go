package oras

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/battle-hardened-ai/bhtrain/internal/canon"
)

// TypeChannel is the artifactType of a channel: one Sigstore bundle that says
// which release is current.
const TypeChannel = "application/vnd.battle-hardened-ai.channel.v1+json"

const channelFile = "channel.sigstore.json" // title of its layer

// ChannelTag is the tag of the channel with this name, "channel-<name>".
func ChannelTag(name string) string { return "channel-" + name }

// packChannel returns the manifest that carries a channel's bundle. It follows
// from the bundle alone.
func packChannel(bundle []byte) (manifest, []byte, error) {
	m := manifest{
		SchemaVersion: 2, MediaType: TypeManifest, ArtifactType: TypeChannel,
		Config: describe(typeEmpty, []byte(emptyJSON), ""),
		Layers: []Descriptor{describe(TypeBundle, bundle, channelFile)},
	}
	b, err := canon.Marshal(m)
	return m, b, err
}

// PutChannel stores a channel's bundle and makes the channel's tag stand for
// it, whatever it stood for before. When PutChannel returns nil the tag has been
// read back, in a registry after a pause in which others finish what they had begun; if another writer set it in between, that is ErrExists, and which of
// the two is to stand there is for the caller to look at. Bytes that are no
// bundle, and a name that makes no tag, are ErrInvalid.
func PutChannel(ctx context.Context, s Store, name string, bundle []byte) (Descriptor, error) {
	if err := checkBundle(bundle); err != nil {
		return Descriptor{}, err
	}
	m, b, err := packChannel(bundle)
	if err != nil {
		return Descriptor{}, fmt.Errorf("channel manifest: %w", invalid(err))
	}
	if !isTag(ChannelTag(name)) {
		return Descriptor{}, fmt.Errorf("%s: %w: %q is not the name of a channel", s, ErrInvalid, printable(name, 140))
	}
	if err := putBytes(ctx, s, m.Config, []byte(emptyJSON)); err != nil {
		return Descriptor{}, err
	}
	if err := putBytes(ctx, s, m.Layers[0], bundle); err != nil {
		return Descriptor{}, err
	}
	d, err := s.PutManifest(ctx, b)
	if err != nil {
		return d, err
	}
	if err := s.Tag(ctx, ChannelTag(name), d); err != nil {
		return d, err
	}
	// Whoever looked before this was written overwrites it within about the time
	// of a request. In a layout, Exclusive keeps others away.
	if r, ok := s.(*remote); ok {
		select {
		case <-ctx.Done():
			return d, ctx.Err()
		case <-time.After(r.pause):
		}
	}
	return d, readBack(ctx, s, ChannelTag(name), d)
}

// readBack reports ErrExists when a tag that was set to d stands for something
// else.
func readBack(ctx context.Context, s Store, tag string, d Descriptor) error {
	switch back, err := s.Resolve(ctx, tag); {
	case err != nil:
		return err
	case back.Digest != d.Digest:
		return fmt.Errorf("%s: %w: tag %s was set to %s and now stands for %s: let other writers finish and try again", s, ErrExists, tag, d.Digest, back.Digest)
	}
	return nil
}

// GetChannel returns the bundle of the channel with this name, and the
// descriptor of its manifest. Nothing about it has been verified but that it
// has the form of a channel and its digests. A store that has no such channel is
// ErrNotFound; what stands at the tag and is none is ErrInvalid.
func GetChannel(ctx context.Context, s Store, name string) (bundle []byte, d Descriptor, err error) {
	if d, err = s.Resolve(ctx, ChannelTag(name)); err != nil {
		return nil, Descriptor{}, err
	}
	fail := func(format string, args ...any) ([]byte, Descriptor, error) {
		return nil, Descriptor{}, fmt.Errorf("%s: %s: %w: "+format, append([]any{s, ChannelTag(name), ErrInvalid}, args...)...)
	}
	if d.Size > MaxOwnManifest {
		return fail("manifest has %d bytes, limit %d", d.Size, MaxOwnManifest)
	}
	b, err := s.Manifest(ctx, d)
	if err != nil {
		return nil, Descriptor{}, err
	}
	m, err := decodeManifest(b)
	if err != nil {
		return nil, Descriptor{}, fmt.Errorf("%s: %s: %w", s, ChannelTag(name), err)
	}
	switch {
	case m.ArtifactType != TypeChannel:
		return fail("artifactType is %q, want %s", printable(m.ArtifactType, 80), TypeChannel)
	case len(m.Layers) != 1:
		return fail("%d layers, want 1", len(m.Layers))
	}
	l := m.Layers[0]
	if l.Size < 1 || l.Size > MaxBundle {
		return fail("bundle states %d bytes, want 1 to %d", l.Size, MaxBundle)
	}
	if bundle, err = readBlob(ctx, s, l, MaxBundle); err != nil {
		return nil, Descriptor{}, err
	}
	if _, want, err := packChannel(bundle); err != nil || !bytes.Equal(b, want) {
		return fail("its manifest is not the one that follows from the bundle")
	}
	if err := checkBundle(bundle); err != nil {
		return fail("%s", err)
	}
	return bundle, d, nil
}

// ChannelIs reports whether the channel with this name is the one of a bundle
// that is known: one Lookup, which says all when nothing has changed. A store that has no such channel is ErrNotFound.
func ChannelIs(ctx context.Context, s Store, name string, bundle []byte) (bool, error) {
	_, manifest, err := packChannel(bundle)
	if err != nil {
		return false, err
	}
	known := canon.Sum(manifest)
	d, err := Lookup(ctx, s, ChannelTag(name), known)
	return err == nil && d == known, err
}

// Exclusive runs f while no other caller of Exclusive runs on the same layout
// directory, in this process or in another; where the operating system has no
// such lock, only on this Store. f may use s. Registries have no lock: there f runs at once, and
// what it writes has to be read back.
func Exclusive(ctx context.Context, s Store, f func() error) error {
	l, ok := s.(*layout)
	if !ok {
		return f()
	}
	return l.exclusive(ctx, f)
}
