// Worker threads that come and go, buffers that are handed over, compression and JSON.
'use strict';
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');
const crypto = require('node:crypto');
const zlib = require('node:zlib');

const hash = (bytes) => crypto.createHash('sha256').update(bytes).digest('hex');

if (!isMainThread) {
    const held = new Map();
    let state = workerData;
    for (let i = 0; i < 20000; i++) {
        state = (state * 48271) % 2147483647;
        held.set(state % 500, Buffer.alloc(state % 5000, i));
    }
    let text = '';
    for (const [key, value] of [...held].sort((a, b) => a[0] - b[0])) text += `${key}:${value.length};`;
    const bytes = new Uint8Array(1 << 20).fill(workerData);
    const packed = zlib.brotliCompressSync(Buffer.from(text.repeat(20)), { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 5 } });
    if (zlib.brotliDecompressSync(packed).toString() !== text.repeat(20)) throw new Error('compression');
    parentPort.postMessage({ held: hash(text), bytes }, [bytes.buffer]);
} else {
    const start = (number) => new Promise((resolve, reject) => {
        const worker = new Worker(__filename, { workerData: number });
        let answer;
        worker.on('message', (message) => { answer = `${number} ${message.held} ${hash(message.bytes)}`; });
        worker.on('error', reject);
        worker.on('exit', (code) => (code === 0 ? resolve(answer) : reject(new Error(`worker ended with ${code}`))));
    });
    (async () => {
        for (let round = 0; round < 3; round++) {
            const answers = await Promise.all([1, 2, 3, 4].map((n) => start(round * 10 + n)));
            console.log(answers.join('\n'));
        }
        const structure = Array.from({ length: 50000 }, (_, i) => ({ id: i, name: `n${i}`, list: [i, i * 2, String(i)] }));
        console.log(hash(JSON.stringify(JSON.parse(JSON.stringify(structure)))));
        const packed = zlib.gzipSync(Buffer.from(JSON.stringify(structure)));
        console.log(hash(zlib.gunzipSync(packed)));
        const derived = await Promise.all([1, 2, 3, 4, 5, 6, 7, 8].map((n) => new Promise((resolve, reject) => {
            crypto.scrypt(`p${n}`, 'salt', 32, (error, key) => (error ? reject(error) : resolve(key.toString('hex'))));
        })));
        console.log(derived.join(' '));
    })().catch((error) => { console.error(error); process.exit(1); });
}
