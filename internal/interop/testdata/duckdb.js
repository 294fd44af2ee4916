// Reads matrix directories with DuckDB and prints sums over them.
//
//   node duckdb.js DIRECTORY... > result.json
//
// The result has for each the number of rows and the columns of matrix.csv, what
// columns.csv calls them, rows and weights by class, part, source and derived, and
// for each column of numbers from the tenth on a sum that depends on which row a
// value stands in: the value times (exploit + record) modulo 997, plus 1. All
// numbers are text.
'use strict';
const path = require('path');
const {DuckDBInstance} = require('@duckdb/node-api');

async function read(directory) {
  const db = await (await DuckDBInstance.create(':memory:')).connect();
  const rows = async sql => (await db.runAndReadAll(sql)).getRowsJson();
  const file = name => `'${path.join(directory, name).replaceAll("'", "''")}'`;

  await db.run(`CREATE TABLE matrix AS FROM ${file('matrix.csv')}`);
  const columns = (await rows('DESCRIBE matrix')).map(r => ({name: r[0], type: r[1]}));
  const described = (await rows(`SELECT name FROM ${file('columns.csv')} ORDER BY "column"`)).map(r => r[0]);
  const groups = (await rows(`SELECT coalesce(class, '') AS class, part, source, derived, count(*), sum(weight)
    FROM matrix GROUP BY ALL ORDER BY ALL`)).map(r => r.map(String));
  const sum = c => `sum("${c.name}"::HUGEINT * ((exploit + record) % 997 + 1))::VARCHAR`;
  const fraction = c => `count(*) FILTER ("${c.name}" <> trunc("${c.name}"))`;
  const numbers = columns.slice(9);
  const [sums] = await rows(`SELECT ${numbers.map(sum).join()} FROM matrix`);
  const [fractions] = await rows(`SELECT ${numbers.map(fraction).join()} FROM matrix`);
  const [[count]] = await rows('SELECT count(*) FROM matrix');
  return {rows: String(count), columns, described, groups, sums, fractions: fractions.map(String)};
}

async function main() {
  const result = [];
  for (const directory of process.argv.slice(2)) result.push(await read(directory));
  process.stdout.write(JSON.stringify(result));
}

main().catch(err => {
  console.error(err);
  process.exit(1);
});
