// Package oras carries releases, datasets and the statements about them to
// and from OCI: an image layout directory, or a registry. It knows digests,
// sizes and names; what the files mean is for other packages.
//
// A [Release] and its four model files become an [Artifact] by [Pack], a
// dataset directory becomes a [Dataset] by [PackDataset]; both are functions
// of their bytes alone, so that anyone who has the bytes gets the same
// manifest digest. [Open] gives a [Store] for a [Ref]. [Push], [PushDataset],
// [AttachBundle] and [Attach] write to it, [Pull], [PullDataset] and [Bundles] read
// from it, [Copy] does both.
//
// A store is not trusted. What is read is bounded (limits.go), hashed against
// the digest that was asked for, and compared with the one form that
// FORMAT.md allows. A store can therefore hide or delay an artifact, but not
// alter it. Which digest to ask for, and whether to believe it, is decided by
// package verify.
package oras
