// `node main.js TARGET FILE`: one call for each line of standard input; prints its status code.
import { createInterface } from "node:readline";
import { Client, credentials, Metadata, ServiceError } from "@grpc/grpc-js";
import { call } from "./runner_token.js";

const [target, file] = process.argv.slice(2);
const client = new Client(target, credentials.createInsecure());
const bytes = (message: Buffer) => message;

const push = (token: Metadata) =>
  new Promise<Buffer | undefined>((resolve, reject) => {
    const options = { deadline: Date.now() + 5_000 };
    const method = "/ambient.v1.SessionService/PushSessionMessage";
    client.makeUnaryRequest(method, bytes, bytes, Buffer.of(), token, options, (error, answer) =>
      error ? reject(error) : resolve(answer),
    );
  });

for await (const _ of createInterface({ input: process.stdin })) {
  const code = await call(push, file).then(
    () => 0,
    (error: ServiceError) => error.code,
  );
  console.log(code);
}
client.close();
