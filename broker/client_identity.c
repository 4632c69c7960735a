/*
 * Who a client is of: settled when it first publishes or subscribes, because the words that say it (CLIENT SETNAME,
 * SETINFO, HELLO) come before, and anew when it says them again. See identity.h and dialect_book.h.
 */
#include "broker/client_parts.h"

#include "broker/broker_config.h"
#include "broker/broker_metrics.h"
#include "broker/identity.h"

#include <stdlib.h>

/* RAW: neither its listener nor its name says. */
static enum message_dialect named_dialect(const struct client_facts *facts)
{
    enum message_dialect dialect = DIALECT_RAW;
    struct slice name = slice_from_text(facts->name);
    switch ((enum broker_dialect)facts->listener->dialect) {
    case ALL_SPEAK_PICKLE:
        return DIALECT_PICKLE;
    case ALL_SPEAK_JSON14:
        return DIALECT_JSON14;
    case ALL_SPEAK_JSON15:
        return DIALECT_JSON15;
    case ALL_SPEAK_AUTO:
        break;
    }
    return dialect_name_split(&name, &dialect) ? dialect : DIALECT_RAW;
}

/* Processes behind one address are told apart by their library, if at all. */
static char *shared_key(const struct client_facts *facts)
{
    char text[ADDRESS_TEXT_SIZE];
    return must_printf("at:%s %s %s", address_ip_text(&facts->peer, text),
                       facts->lib_name, facts->lib_version);
}

void client_identify(struct client *client)
{
    struct client_facts *facts = &client->facts;
    if (client->is_identified)
        return;
    client->is_identified = true;
    free(facts->identity);
    facts->identity = identity_of(facts->name, &facts->peer, client->stream.fd);
    if (facts->identity[0] != '\0' && identity_is_shareable(facts->identity))
        echo_view_attach(&facts->echo, client->set->echoes, facts->identity,
                         identity_is_process(facts->identity));
    enum message_dialect named = named_dialect(facts);
    if (named != DIALECT_RAW) {
        dialect_view_name(&facts->dialect, named);
        return;
    }
    bool is_shared =
        facts->identity[0] == '\0' || !identity_is_shareable(facts->identity);
    char *key = is_shared ? shared_key(facts) : must_strdup(facts->identity);
    dialect_view_attach(&facts->dialect, client->set->dialects, key, is_shared);
    free(key);
}

void client_name_dialect(struct client *client,
                         const uint8_t host_id[ENVELOPE_HOST_ID_LEN],
                         enum message_dialect dialect)
{
    dialect_view_name_host(&client->facts.dialect, client->set->dialects, host_id,
                           dialect);
}

void client_forget_identity(struct client *client)
{
    dialect_view_detach(&client->facts.dialect);
    echo_view_detach(&client->facts.echo);
    client->is_identified = false;
}

void client_identity_cleanup(struct client *client)
{
    dialect_view_detach(&client->facts.dialect);
    echo_view_detach(&client->facts.echo);
    free(client->facts.identity);
}

void client_miss(struct client *client, enum message_dialect from,
                 enum message_dialect to, const char *why)
{
    struct client_facts *facts = &client->facts;
    facts->missed++;
    metrics_add_by(M_MISSED, (int)to, 1);
    if (facts->has_logged_missed)
        return;
    facts->has_logged_missed = true;
    char peer[ADDRESS_TEXT_SIZE];
    struct log_subject subject = client_subject(client);
    log_warn(&subject, "message not delivered: it has no form in the client's dialect",
             LOG_TEXT("from", message_dialect_name(from)),
             LOG_TEXT("to", message_dialect_name(to)), LOG_TEXT("why", why),
             LOG_TEXT("name", facts->name),
             LOG_TEXT("peer", address_text(&facts->peer, peer)));
}
