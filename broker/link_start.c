/*
 * What is said on a new connection, and whether the shard is a master. To add a step: a row in `enum step`, and what its
 * answer means in link_take_step().
 */
#include "broker/link_parts.h"

#include "broker/broker_config.h"
#include "shared/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

void link_send_word(struct link *link, const char *word)
{
    size_t len = strlen(word);
    link_send_arguments(link, 1, &word, &len);
}

void link_send_role(struct link *link)
{
    const char *info[2] = {"INFO", "replication"};
    const size_t lens[2] = {4, 11};
    if (link->role_source == ROLE_BY_INFO)
        link_send_arguments(link, 2, info, lens);
    else
        link_send_word(link, link->role_source == ROLE_BY_ROLE ? "ROLE" : "PING");
}

/* ── the start: AUTH, CLIENT SETNAME, ROLE in one write ── */

bool link_send_start(struct link *link)
{
    char *password, why[FILE_WHY_SIZE];
    if (!broker_config_shard_password(link->config.shard, &password, why)) {
        snprintf(link->reason_text, sizeof(link->reason_text), "%s: %s",
                 link->config.shard->password_file, why);
        link_close(link, CLOSE_LINK_PASSWORD);
        return false;
    }
    const char *username = link->config.shard->username;
    bool has_auth = password[0] != '\0' || username[0] != '\0';
    if (has_auth) {
        const char *words[3] = {"AUTH", username, password};
        size_t lens[3] = {4, strlen(username), strlen(password)};
        bool has_name = username[0] != '\0';
        if (!has_name) {
            words[1] = password;
            lens[1] = lens[2];
        }
        link_send_arguments(link, has_name ? 3 : 2, words, lens);
    }
    explicit_bzero(password, strlen(password));
    free(password);
    const char *name[3] = {"CLIENT", "SETNAME", link->client_name};
    const size_t name_lens[3] = {6, 7, strlen(link->client_name)};
    link_send_arguments(link, 3, name, name_lens);
    link->role_source = ROLE_BY_ROLE;
    link_send_role(link);
    link->step = has_auth ? STEP_AUTH : STEP_NAME;
    return true;
}

/* Redis says that it wants other credentials. */
static bool is_about_credentials(struct slice text)
{
    return slice_starts_with(text, SLICE("NOAUTH")) ||
           slice_starts_with(text, SLICE("WRONGPASS"));
}

enum role link_role_of(const struct link *link, const struct link_reply *reply)
{
    static const struct slice named = SLICE_INIT("role:");
    if (link->role_source == ROLE_IS_TRUSTED)
        return ROLE_MASTER;
    if (reply->type == LINK_REPLY_ERROR)
        return slice_starts_with(reply->text, SLICE("NOPERM")) ||
                       slice_starts_with(reply->text, SLICE("ERR unknown"))
                   ? ROLE_REFUSED
                   : ROLE_UNKNOWN;
    if (link->role_source == ROLE_BY_ROLE)
        return reply->type == LINK_REPLY_ARRAY &&
                       slice_equals(reply->text, SLICE("master"))
                   ? ROLE_MASTER
                   : ROLE_OTHER;
    struct slice rest = reply->text;
    struct slice line;
    while (slice_cut(&rest, '\n', &line))
        if (slice_starts_with(line, named))
            return slice_starts_with(slice_from(line, named.len), SLICE("master"))
                       ? ROLE_MASTER
                       : ROLE_OTHER;
    return ROLE_REFUSED;
}

/* The next way to ask, or none. False: the shard is trusted. */
static bool ask_role_otherwise(struct link *link, struct slice text)
{
    if (link->role_source == ROLE_BY_ROLE) {
        link->role_source = ROLE_BY_INFO;
        link_send_role(link);
        return true;
    }
    link->role_source = ROLE_IS_TRUSTED;
    struct log_subject subject = {.kind = "shard", .name = link->config.shard->name};
    if (!link->has_warned_of_role && link->config.kind == LINK_PUBLISHING)
        log_warn(
            &subject,
            "neither ROLE nor INFO may be asked: it is trusted to be a master, and a "
            "demotion is not noticed; allow +role or +info",
            LOG_SLICE("why", text));
    link->has_warned_of_role = true;
    return false;
}

static void begin_up(struct link *link)
{
    link->step = STEP_COUNT;
    link->may_retry_at_once = true;
    backoff_reset(&link->backoff);
    link->address_count = 0; /* the next connection resolves the name */
    link_change(link, LINK_UP);
    link->callbacks.on_change(link->callbacks.context, link);
}

static void take_role(struct link *link, const struct link_reply *reply)
{
    switch (link_role_of(link, reply)) {
    case ROLE_MASTER:
        begin_up(link);
        return;
    case ROLE_REFUSED:
        if (!ask_role_otherwise(link, reply->text))
            begin_up(link);
        else
            link_write_output(link);
        return;
    case ROLE_OTHER:
    case ROLE_UNKNOWN:
        link_close_with_text(link, CLOSE_LINK_NOT_MASTER, SLICE(""));
        return;
    }
    unreachable();
}

static bool is_about_role(const struct link *link, struct slice text)
{
    return link->step == STEP_ROLE && (slice_starts_with(text, SLICE("NOPERM")) ||
                                       slice_starts_with(text, SLICE("ERR unknown")));
}

void link_take_step(struct link *link, const struct link_reply *reply)
{
    struct slice text = reply->text;
    if (reply->type == LINK_REPLY_ERROR) {
        bool is_wrong = link->step == STEP_AUTH || is_about_credentials(text);
        bool is_refused = slice_starts_with(text, SLICE("ERR max number of clients"));
        /* A Redis whose ACL lacks client|setname works all the same. */
        if ((link->step != STEP_NAME && !is_about_role(link, text)) || is_wrong ||
            is_refused) {
            link_close_with_text(
                link, is_wrong && !is_refused ? CLOSE_LINK_AUTH : CLOSE_LINK_DENIED,
                text);
            return;
        }
    }
    switch (link->step) {
    case STEP_AUTH:
    case STEP_NAME:
        link->step++;
        return;
    case STEP_ROLE:
        take_role(link, reply);
        return;
    case STEP_COUNT:
        break;
    }
    unreachable();
}
