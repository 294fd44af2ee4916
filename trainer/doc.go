// Package trainer turns a snapshot and a recipe into the four models of a
// release.
//
// Everything that decides a byte is an integer or is rounded explicitly, so
// the result is the same on every CPU and with any number of workers. Rows
// become vectors (package feature) and bins; one engine grows trees on integer
// histograms for boosting and forests; the isolation forest and the scaler
// stand beside it. What is learnt is measured on rows that chose nothing.
package trainer
