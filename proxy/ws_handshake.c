#include "proxy/ws_handshake.h"

#include <openssl/evp.h>
#include <openssl/sha.h>

void ws_accept_write(struct slice key, char accept[WS_ACCEPT_LEN])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    unsigned char text[WS_KEY_LEN + sizeof(guid) - 1];
    unsigned char digest[SHA_DIGEST_LENGTH];
    unsigned char encoded[WS_ACCEPT_LEN + 1]; /* EVP_EncodeBlock adds a NUL */
    check(key.len == WS_KEY_LEN);
    memcpy(text, key.data, WS_KEY_LEN);
    memcpy(text + WS_KEY_LEN, guid, sizeof(guid) - 1);
    SHA1(text, sizeof(text), digest);
    check(EVP_EncodeBlock(encoded, digest, sizeof(digest)) == WS_ACCEPT_LEN);
    memcpy(accept, encoded, WS_ACCEPT_LEN);
}

bool ws_accept_matches(struct slice key, struct slice accept)
{
    char wanted[WS_ACCEPT_LEN];
    ws_accept_write(key, wanted);
    return slice_equals(accept, slice_of(wanted, sizeof(wanted)));
}
