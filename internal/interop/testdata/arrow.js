// Reads Arrow files and prints what is in them.
//
//   node arrow.js < job.json > result.json
//
// The job lists files, each with a path and the positions of the rows to show.
// The result has for each the number of rows, metadata and columns of the
// schema, and the rows asked for, every value as text.
'use strict';
const fs = require('fs');
const arrow = require('apache-arrow');

const job = JSON.parse(fs.readFileSync(0, 'utf8'));
const result = job.map(({path, show}) => {
  const table = arrow.tableFromIPC(fs.readFileSync(path));
  const columns = table.schema.fields.map((f, i) => ({
    name: f.name, type: String(f.type), nullable: f.nullable, nulls: table.getChildAt(i).nullCount,
  }));
  const rows = show.map(at => columns.map((_, i) => String(table.getChildAt(i).get(at))));
  return {rows: table.numRows, metadata: Object.fromEntries(table.schema.metadata), columns, values: rows};
});
process.stdout.write(JSON.stringify(result));
