// Times models in ONNX Runtime with one thread.
//
//   node speed.js JOB
//
// JOB is a file of JSON: models, a list, each with the path of its file and its
// input, "features" or "scaled"; dim, the number of features of a vector; rows,
// by input, the path of a file of little-endian float32.
//
// Every line of the standard input is a question {models, batch, calls, api}:
// that many calls with that many rows each, through all models of the list, by
// number. The answer, a line too, has for every call the nanoseconds it took,
// and the microseconds of processor time of all of them. Without api the calls
// go straight to the native session, which spares them a turn of the event loop
// and the checks of the JavaScript library.
'use strict';
const fs = require('fs');
const readline = require('readline');
const ort = require('onnxruntime-node');
const {binding} = require('onnxruntime-node/dist/binding.js');

// Tensors of a batch size, cut out of the rows one after the other and begun
// again at the end.
function tensors(rows, dim, batch, calls) {
  const count = rows.length / dim, list = [];
  for (let i = 0; i < Math.min(calls, Math.max(1, Math.floor(count / batch))); i++) {
    const x = new Float32Array(batch * dim);
    for (let r = 0; r < batch; r++) {
      const at = (i * batch + r) % count * dim;
      x.set(rows.subarray(at, at + dim), r * dim);
    }
    list.push(new ort.Tensor('float32', x, [batch, dim]));
  }
  return list;
}

async function main() {
  const job = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
  const rows = {};
  for (const [name, path] of Object.entries(job.rows)) {
    const b = fs.readFileSync(path);
    rows[name] = new Float32Array(b.buffer.slice(b.byteOffset, b.byteOffset + b.length));
  }
  const options = {intraOpNumThreads: 1, interOpNumThreads: 1, executionMode: 'sequential', graphOptimizationLevel: 'all'};
  const models = [];
  for (const m of job.models) {
    const api = await ort.InferenceSession.create(m.file, options);
    const native = new binding.InferenceSession();
    native.loadModel(m.file, options);
    const fetches = {};
    for (const name of api.outputNames) fetches[name] = null;
    models.push({input: m.input, api, native, fetches});
  }
  for await (const line of readline.createInterface({input: process.stdin})) {
    const q = JSON.parse(line);
    const used = {};
    for (const i of q.models) {
      const name = models[i].input;
      used[name] = used[name] || tensors(rows[name], job.dim, q.batch, q.calls);
    }
    const steps = q.models.map(i => {
      const m = models[i], list = used[m.input], feeds = list.map(x => ({[m.input]: x}));
      return {m, feeds};
    });
    const took = new Array(q.calls);
    const before = process.cpuUsage();
    for (let k = 0; k < q.calls; k++) {
      const start = performance.now();
      for (const {m, feeds} of steps) {
        const x = feeds[k % feeds.length];
        if (q.api) await m.api.run(x);
        else m.native.run(x, m.fetches, {});
      }
      took[k] = Math.round((performance.now() - start) * 1e6);
    }
    const cpu = process.cpuUsage(before);
    process.stdout.write(JSON.stringify({took, cpu: cpu.user + cpu.system}) + '\n');
  }
}

main().catch(err => {
  console.error(err);
  process.exit(1);
});
