// Package model is the four model files of a release and what they say about
// a vector. It encodes and decodes the files (ONNX, in the canonical form of
// FORMAT.md) and scores vectors with them. How models come about is package
// trainer's business.
//
// A file has one encoding: [Decode] accepts exactly the bytes that
// [EncodeScaler] and [EncodeEnsemble] write, and nothing else that happens to
// be ONNX. Scores are the same bits on every architecture.
package model
