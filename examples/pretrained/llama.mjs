// What llama.cpp makes of a GGUF file: the perplexity of windows of tokens, and the likeliest 32 tokens after the first
// 16 of the first window.
//
//     npm install node-llama-cpp@3.22.1
//     node llama.mjs MODEL.gguf WINDOWS.json
import fs from "node:fs";
import {getLlama, LlamaLogLevel} from "node-llama-cpp";

const [file, windowsFile] = process.argv.slice(2);
const windows = JSON.parse(fs.readFileSync(windowsFile, "utf8"));
const llama = await getLlama({build: "never", gpu: false, logLevel: LlamaLogLevel.error});
const model = await llama.loadModel({modelPath: file});

let nats = 0;
let count = 0;
for (const window of windows) {
    const context = await model.createContext({contextSize: window.length + 64});
    const input = window.slice(0, -1).map((token) => [token, {generateNext: {probabilities: true}}]);
    const output = await context.getSequence().controlledEvaluate(input);
    for (const [i, {next}] of output.entries()) {
        nats -= Math.log(next.probabilities.get(window[i + 1]) ?? 0);
        count += 1;
    }
    await context.dispose();
}

const context = await model.createContext({contextSize: 128});
const tokens = [];
for await (const token of context.getSequence().evaluate(windows[0].slice(0, 16), {temperature: 0})) {
    if (tokens.push(token) === 32) break;
}
console.log(JSON.stringify({perplexity: Math.exp(nats / count), tokens}));
