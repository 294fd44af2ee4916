// Reads model files as protocol buffers and prints their content.
//
//   node protobuf.js FILE... > result.json
//
// Every file is read by ONNX's public schema, as the package onnx-proto has it
// compiled, and by onnx.proto beside this script. The result lists for each
// the content (integers of 64 bits as text, bytes in base64), and whether the
// two readings agree, whether a field was met that onnx.proto does not have, and
// whether writing the content again gives the bytes of the file.
'use strict';
const fs = require('fs');
const path = require('path');
const {isDeepStrictEqual} = require('util');
const protobuf = require('protobufjs');
const {onnx} = require('onnx-proto');

const ours = protobuf.loadSync(path.join(__dirname, 'onnx.proto')).lookupType('onnx.ModelProto');
const plain = {longs: String, bytes: String};

// unknown names the fields that a reading kept without knowing them.
function unknown(m, at) {
  if (m === null || typeof m !== 'object' || ArrayBuffer.isView(m)) return [];
  const found = Object.prototype.hasOwnProperty.call(m, '$unknowns') ? [at] : [];
  for (const [name, value] of Object.entries(m)) found.push(...unknown(value, at + '.' + name));
  return found;
}

// read decodes with a limit on unknown fields of none: they are kept to be found.
function read(bytes) {
  const reader = protobuf.Reader.create(bytes);
  reader.discardUnknown = false;
  return ours.decode(reader);
}

const result = process.argv.slice(2).map(file => {
  const bytes = fs.readFileSync(file);
  const theirs = onnx.ModelProto.toObject(onnx.ModelProto.decode(bytes), plain);
  const message = read(bytes);
  return {
    content: theirs,
    agree: isDeepStrictEqual(theirs, ours.toObject(message, plain)),
    unknown: unknown(message, 'model'),
    same: bytes.equals(ours.encode(message).finish()),
  };
});
process.stdout.write(JSON.stringify(result));
