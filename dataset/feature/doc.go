// Package feature turns one record into one vector. Training and serving call
// the same code with the same configuration, so a model meets in the field
// what it met when it was trained.
//
// A vector has Dim columns of float32; every value is a whole number of
// magnitude below 2^24 and never NaN, on every CPU. What each column means
// stands in Columns and, as a table, in FEATURES.md.
//
// Text is normalised before it is counted: up to three layers of percent,
// %u, HTML and backslash escapes are undone, "+" becomes a space, overlong and
// full-width characters become the ASCII they imitate, letters become lower
// case, comments and runs of white space become one space, or one line break if
// they hold one. An attack and its encoded twin therefore differ in the columns
// that count encodings and in no token column. Of a text longer than 8 KiB the
// beginning and the end are looked at.
//
// A request target is cut into path segments and parameter values. Structure
// is measured in each and pooled by maximum and by count, so that one bad
// parameter weighs the same in a short line and in a long one.
//
// The label, level, event id, input kind, outcome and exploit number of a
// record never reach its own vector.
//
// The title of an exploit is fed as a record whose Payload is the title with
// the words that the taxonomy matched masked, whose Port is the exploit's, and
// whose other fields are empty: no address, no time, no method. The exploit's
// type and platform are not fed, since no observed event carries them and the
// type nearly states the class. Known scripts and parameters are looked for in
// request targets only, so that a title does not answer for itself by what the
// lexicon learnt from it.
package feature
