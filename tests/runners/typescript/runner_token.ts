import { readFileSync } from "node:fs";
import { Metadata, ServiceError, status } from "@grpc/grpc-js";

export const TOKEN_FILE = "/var/run/secrets/ambient/bot-token";

export function bearer(file = TOKEN_FILE): string {
  try {
    return `Bearer ${readFileSync(file, "ascii").trim()}`;
  } catch { // opened while the kubelet replaced the directory
    return `Bearer ${readFileSync(file, "ascii").trim()}`;
  }
}

export async function call<Answer>(method: (token: Metadata) => Promise<Answer>, file = TOKEN_FILE): Promise<Answer> {
  const token = bearer(file);
  try {
    return await method(Metadata.fromHttp2Headers({ authorization: token }));
  } catch (error) {
    const newest = bearer(file);
    if ((error as ServiceError).code !== status.UNAUTHENTICATED || newest === token) throw error;
    return await method(Metadata.fromHttp2Headers({ authorization: newest }));
  }
}
