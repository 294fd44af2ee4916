// Runs model files in ONNX Runtime and prints what comes out.
//
//   node onnxruntime.js < job.json > result.json
//
// The job lists models, each with the path of its file, the name of its input,
// the number of its features, and rows: the path of a file of little-endian
// float32. Every model runs with 1 and 2 threads and the given batch sizes,
// 0 for all rows at once. The result has, for every run, each output by name:
// numbers as little-endian float32 in base64, labels as a list.
'use strict';
const fs = require('fs');
const ort = require('onnxruntime-node');

async function main() {
  const job = JSON.parse(fs.readFileSync(0, 'utf8'));
  const result = [];
  for (const m of job) {
    const bytes = fs.readFileSync(m.rows);
    const rows = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
    const count = rows.length / m.dim;
    for (const threads of [1, 2]) {
      const session = await ort.InferenceSession.create(m.file, {intraOpNumThreads: threads});
      for (const size of m.batches) {
        const batch = size || count;
        const parts = {};
        for (const name of session.outputNames) parts[name] = [];
        for (let at = 0; at < count; at += batch) {
          const n = Math.min(batch, count - at);
          const x = new ort.Tensor('float32', rows.subarray(at * m.dim, (at + n) * m.dim), [n, m.dim]);
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
      await session.release();
    }
  }
  process.stdout.write(JSON.stringify(result));
}

main().catch(err => {
  console.error(err);
  process.exit(1);
});
