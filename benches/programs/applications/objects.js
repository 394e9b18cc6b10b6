// The engine has a heap of its own; what it takes from malloc is code, zones of its compilers, buffers and tables.
const records = [];
for (let number = 0; number < 120000; number++) {
    records.push({ id: number, name: `record ${(number * 7919) % 10007}`, list: [number % 3, number % 5], more: null });
}
let sum = 0;
for (let round = 0; round < 4; round++) {
    const text = JSON.stringify(records);
    const again = JSON.parse(text);
    sum += again.filter((record) => record.name.endsWith("7")).length + text.length;
    const buffers = [];
    for (let made = 0; made < 3000; made++) buffers.push(Buffer.from(text.slice(made * 100, made * 100 + 9000)));
    sum += Buffer.concat(buffers).length;
    const compiled = new Function("x", `let y = x; ${"y = (y * 31 + 7) % 1000003; ".repeat(2000)} return y;`);
    for (let call = 0; call < 3000; call++) sum += compiled(call);
}
console.log(sum);
