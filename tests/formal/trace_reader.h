/* Hands the events of a trace to the model, one after the other. Of the file that REMUS_TRACE names each line is
 * "host action generation epoch". When the search has ended, says how many events the model could do at most. */
#include <stdio.h>
#include <stdlib.h>

struct trace_event { short host, act, gen, epoch; };
static struct trace_event *trace_events;
static short trace_length = -1, trace_furthest;

static void trace_report(void) { printf("events done: %d\n", trace_furthest); }

static void trace_load(void)
{
	const char *name = getenv("REMUS_TRACE");
	FILE *file = name ? fopen(name, "r") : NULL;
	struct trace_event event;
	if (!file) {
		fprintf(stderr, "REMUS_TRACE does not name a readable file\n");
		exit(2);
	}
	trace_length = 0;
	trace_events = calloc(32767, sizeof event);
	while (trace_length < 32766
		&& fscanf(file, "%hd %hd %hd %hd", &event.host, &event.act, &event.gen, &event.epoch) == 4)
		trace_events[trace_length++] = event;
	fclose(file);
	atexit(trace_report);
}

static void trace_next(short *pos, short *host, short *act, short *gen, short *epoch)
{
	struct trace_event none = {0, 0, 0, 0};
	if (trace_length < 0)
		trace_load();
	struct trace_event next = *pos < trace_length ? trace_events[*pos] : none;
	if (*pos > trace_furthest)
		trace_furthest = *pos;
	*host = next.host;
	*act = next.act;
	*gen = next.gen;
	*epoch = next.epoch;
	(*pos)++;
}
