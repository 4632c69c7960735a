/*
 * Which TLS sessions a server resumes: those that a full handshake with its own settings would allow now.
 *
 *      client certificates asked for, by which CA ─ SHA-256 ─▶ session ID context ─▶ in every ticket
 *      ticket ─▶ another context? certificate of the client expired? ─ yes ─▶ a full handshake
 *
 * Ticket keys that listeners or replicas share open each other's tickets, so a ticket says what was verified when
 * it was made, and it is worth nothing where something else is asked for. (RFC 5077 section 5.6, RFC 8446 section 8.1)
 */
#pragma once

struct ssl_ctx_st; /* OpenSSL's SSL_CTX */

/* For a server's context whose client CA, if any, is loaded and whose verify mode is set. Afterwards neither
 * may change. */
void tls_sessions_bind(struct ssl_ctx_st *context);
