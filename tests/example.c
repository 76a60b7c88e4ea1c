/* The example of runtime/breastgpt.h, as C: it must compile as C99 with warnings as errors. Returns 0, or 1 with *error filled. */
#include <stdio.h>

#include "runtime/breastgpt.h"

int example_ask(const char* weights, const uint8_t* rgb, int64_t width, int64_t height, char* text, size_t size, bg_error* error);

int example_ask(const char* weights, const uint8_t* rgb, int64_t width, int64_t height, char* text, size_t size, bg_error* error) {
  bg_model* model = NULL;
  bg_session* session = NULL;
  const bg_answer* answer = NULL;
  int failed = 1;
  bg_session_params params = bg_session_params_default();
  bg_generation generation = bg_generation_default();
  params.threads = 2;
  params.context = 256;
  generation.max_tokens = 24;
  if (bg_model_open(weights, &model, error) != BG_OK) return 1;
  if (bg_session_open(model, &params, &session, error) == BG_OK) {
    bg_image image = {sizeof(bg_image), width, height, rgb, NULL};
    if (bg_session_add_image(session, &image, NULL, error) == BG_OK && bg_session_ask(session, "Is there a mass?", &generation, NULL, NULL, &answer, error) == BG_OK) {
      snprintf(text, size, "%s", answer->text);
      failed = 0;
    }
  }
  bg_session_close(session);
  bg_model_close(model);
  return failed;
}
