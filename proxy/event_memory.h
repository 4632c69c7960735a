/*
 * Where libevent's small things for ever lie.
 *
 * For each descriptor that was ever watched libevent keeps 16 bytes until its loop ends. From malloc they take 32
 * and lie among the buffers of requests, so that after a busy hour no page around them can be given back.
 * Here they lie side by side:
 *
 *      region (reserved, not used until touched)
 *      [ 4 KiB of thread 1 | 4 KiB of thread 2 | 4 KiB of thread 1 | …        ]
 *        16 16 16 16 …       16 16 …
 *
 * Everything else that libevent asks for comes from malloc. Allocation never fails (as in base.h).
 */
#pragma once

/* Before libevent's first use. */
void event_memory_init(void);
