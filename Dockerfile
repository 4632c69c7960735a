# Both daemons in one image, on PATH: docker build -t sidrail:0.1.0 .
# (a test compares the packages with those that ./run installs to build, and with the libraries that the daemons load)
FROM debian:12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev cmake ninja-build pkg-config libevent-dev \
    libhiredis-dev libxxhash-dev libyaml-dev libssl-dev libjansson-dev libc-ares-dev uthash-dev libcmocka-dev
COPY . /src
RUN cmake -S /src -B /build -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo && ninja -C /build sidrail-proxy sidrail-broker

FROM debian:12-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libevent-core-2.1-7 libevent-extra-2.1-7 \
    libevent-pthreads-2.1-7 libhiredis0.14 libxxhash0 libyaml-0-2 libssl3 libjansson4 libc-ares2 && rm -rf /var/lib/apt/lists/*
COPY --from=build /build/sidrail-proxy /build/sidrail-broker /usr/bin/
USER 65532:65532
STOPSIGNAL SIGTERM
