// Runs model files in ONNX Runtime and prints what comes out.
//
//   node onnxruntime.js FOLDER < job.json > result.json
//
// FOLDER holds node_modules/onnxruntime-node. The job lists models, each with
// the path of its file, the name of its input, and rows: little-endian float32
// in base64. Every model runs with several thread counts and batch sizes. The
// result has, for every run, each output by name: numbers in base64 as above,
// labels as a list.
'use strict';
const fs = require('fs');
const path = require('path');
const ort = require(path.join(process.argv[2], 'node_modules', 'onnxruntime-node'));

async function main() {
  const job = JSON.parse(fs.readFileSync(0, 'utf8'));
  const result = [];
  for (const m of job) {
    const bytes = Buffer.from(m.rows, 'base64');
    const rows = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
    const count = rows.length / m.dim;
    for (const threads of [1, 2]) {
      const session = await ort.InferenceSession.create(m.file, {intraOpNumThreads: threads});
      for (const batch of [1, 7, count]) {
        const parts = {};
        for (const name of session.outputNames) parts[name] = [];
        for (let at = 0; at < count; at += batch) {
          const n = Math.min(batch, count - at);
          const x = new ort.Tensor('float32', rows.slice(at * m.dim, (at + n) * m.dim), [n, m.dim]);
          const out = await session.run({[m.input]: x});
          for (const name of session.outputNames) parts[name].push(out[name].data);
        }
        const outputs = {}, labels = {};
        for (const [name, list] of Object.entries(parts)) {
          if (list[0] instanceof Float32Array) {
            outputs[name] = Buffer.concat(list.map(a => Buffer.from(a.buffer, a.byteOffset, a.byteLength))).toString('base64');
          } else {
            labels[name] = list.flatMap(a => Array.from(a));
          }
        }
        result.push({model: m.name, threads, batch, outputs, labels});
      }
    }
  }
  process.stdout.write(JSON.stringify(result));
}

main().catch(err => {
  console.error(err);
  process.exit(1);
});
