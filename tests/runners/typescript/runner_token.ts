import { readFileSync } from "node:fs";
import { Metadata, ServiceError, status } from "@grpc/grpc-js";

export const TOKEN_FILE = "/var/run/secrets/ambient/bot-token";

export function bearer(file = TOKEN_FILE): Metadata {
  const metadata = new Metadata();
  metadata.set("authorization", `Bearer ${read(file).trim()}`);
  return metadata;
}

function read(file: string): string {
  try {
    return readFileSync(file, "ascii");
  } catch { // opened while the kubelet replaced the directory
    return readFileSync(file, "ascii");
  }
}

export async function call<Answer>(method: (token: Metadata) => Promise<Answer>, file = TOKEN_FILE): Promise<Answer> {
  const token = bearer(file);
  try {
    return await method(token);
  } catch (error) {
    const newest = bearer(file);
    const isSame = String(newest.get("authorization")) === String(token.get("authorization"));
    if ((error as ServiceError).code !== status.UNAUTHENTICATED || isSame) throw error;
    return await method(newest);
  }
}
