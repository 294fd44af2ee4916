// Package pipeline is the one place where the stages meet: inputs become a
// snapshot, the snapshot four models, the models a release in a store, and
// the release a signed one that is verified before it is shown to anybody.
package pipeline
