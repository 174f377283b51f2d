// An oidc-provider with one client, for the tests: node server.mjs PACKAGE_FOLDER CONFIG_FILE.
// SIGHUP reads the configuration again: another secret, no client, another signing key.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [, , folder, file] = process.argv;
const entry = createRequire(`${folder}/`).resolve('oidc-provider');
const { default: Provider, errors } = await import(pathToFileURL(entry));
let handle;

function load() {
  const { port, ttl, audience, scopes, client, jwks } = JSON.parse(readFileSync(file, 'utf8'));
  const url = `http://127.0.0.1:${port}`;
  const provider = new Provider(url, {
    clients: client ? [{ ...client, grant_types: ['client_credentials'], redirect_uris: [],
      response_types: [], token_endpoint_auth_method: 'client_secret_basic' }] : [],
    jwks,
    scopes,
    ttl: { ClientCredentials: ttl },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => audience,
        getResourceServerInfo: (_, resource) => {
          if (resource !== audience) throw new errors.InvalidTarget();
          const scope = scopes.join(' ');
          return { scope, audience: resource, accessTokenTTL: ttl, accessTokenFormat: 'jwt' };
        },
      },
    },
  });
  handle = provider.callback();
  return port;
}

const port = load();
createServer((request, response) => handle(request, response)).listen(port, '127.0.0.1');
process.on('SIGHUP', load);
