/* server/prompt.h: prompts as a body holds them, made into token ids; for whoever generates, renders or tokenizes. May run
 * on a worker. Where there would be more than tokens_max ids (0: any number), it is refused as too long for the context
 * before much was spent on it. All return 0, or -1 with *f set. */
#pragma once
#include "server/service.h"

/* p->messages through the model's template; takes members out of `body`. */
int prompt_of_messages(const service *sv, const request_params *p, cJSON *body, uint32_t tokens_max, token_ids *out,
                       fault *f);
int prompt_of_text(const service *sv, const request_params *p, const char *text, uint32_t tokens_max, token_ids *out,
                   fault *f);

int prompt_too_long(const service *sv, const char *param, const char *at_least, uint64_t tokens, fault *f);
int prompt_check_model(const service *sv, const request_params *p, fault *f); /* the one asked for is the one served */
