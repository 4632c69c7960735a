#include "broker/identity.h"

#include "broker/dialect_guess.h"
#include "shared/address.h"

#include <sys/socket.h>

#define ADDRESS_PREFIX "address:"
#define PROCESS_PREFIX "process:"

/* Nobody gave it this name: redis-cli says it by itself, each time it starts. */
static bool is_chosen(const char *name)
{
    return name[0] != '\0' && strcmp(name, "redis-cli") != 0;
}

static char *identity_of_process(int fd)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    /* pid 0: of a namespace that cannot be seen from here */
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0 || peer.pid <= 0)
        return must_strdup("");
    return must_printf(PROCESS_PREFIX "%u:%d", (unsigned)peer.uid, (int)peer.pid);
}

static bool is_loopback(const char *ip)
{
    return strncmp(ip, "127.", 4) == 0 || strcmp(ip, "::1") == 0;
}

char *identity_of(const char *name, const struct address *peer, int fd)
{
    struct slice chosen = slice_from_text(name);
    enum message_dialect dialect;
    if (is_chosen(name) && (!dialect_name_split(&chosen, &dialect) || chosen.len > 0))
        return must_printf("name:%.*s", SLICE_ARGS(chosen));
    if (name[0] != '\0' && !is_chosen(name))
        return must_strdup("");
    if (address_is_unix(peer))
        return identity_of_process(fd);
    char text[ADDRESS_TEXT_SIZE];
    const char *ip = address_ip_text(peer, text);
    return is_loopback(ip) ? must_strdup("") : must_printf(ADDRESS_PREFIX "%s", ip);
}

bool identity_is_process(const char *identity)
{
    return strncmp(identity, PROCESS_PREFIX, strlen(PROCESS_PREFIX)) == 0;
}

bool identity_is_shareable(const char *identity)
{
    return strncmp(identity, ADDRESS_PREFIX, strlen(ADDRESS_PREFIX)) != 0;
}
