/* What is left of the input of clients: requests that are not whole, or wait. See client_parts.h. */
#include "broker/client_parts.h"

#include <stdlib.h>

void client_input_set_len(struct client *client, size_t len)
{
    client->set->input_bytes += len - client->input_len;
    client->input_len = len;
}

void client_input_give_back(struct client *client)
{
    free(client->input);
    client->input = NULL;
    client->input_size = 0;
    client_input_set_len(client, 0);
}

void client_input_keep(struct client *client, struct slice rest)
{
    if (client->state != CLIENT_OPEN || rest.len == 0) {
        client_input_give_back(client);
        return;
    }
    if (client->input == NULL) {
        client->input = must_memdup(rest.data, rest.len);
        client->input_size = rest.len;
    } else if (client->input_size > 2 * READ_SIZE && rest.len < client->input_size / 4) {
        char *smaller = must_memdup(rest.data, rest.len);
        free(client->input);
        client->input = smaller;
        client->input_size = rest.len;
    } else if (rest.data != client->input) {
        memmove(client->input, rest.data, rest.len);
    }
    client_input_set_len(client, rest.len);
}

void client_input_grow(struct client *client)
{
    if (client->input_size - client->input_len >= READ_SIZE / 4)
        return;
    client->input_size =
        max_size(client->input_size * 2, client->input_len + READ_SIZE / 4);
    client->input = must_realloc(client->input, client->input_size);
}

/* Is more of this request to come, or does a whole one wait? The first is closed rather than the second. */
static bool is_worse(const struct client *client, const struct client *than)
{
    bool is_whole = client->facts.waits_since != 0;
    if (than == NULL || is_whole != (than->facts.waits_since != 0))
        return than == NULL || !is_whole;
    return client->input_len > than->input_len;
}

struct client *client_longest_input(struct client_set *set)
{
    struct client *longest = NULL;
    struct client *client;
    TAILQ_FOREACH(client, &set->parked, of_set)
    client_input_give_back(client);
    TAILQ_FOREACH(client, &set->open, of_set)
    {
        if (client->state != CLIENT_OPEN)
            client_input_give_back(client);
        else if (client->input_len > 0 && is_worse(client, longest))
            longest = client;
    }
    return set->input_bytes > set->limits.input ? longest : NULL;
}
