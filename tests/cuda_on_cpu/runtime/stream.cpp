/*
 * stream.cpp: streams and events.
 *
 * A lazy stream holds its work until something waits for it; then streams advance in random turns until what was waited
 * for is done. The default stream waits for all that block on it, and they for it.
 */
#include "emulator.h"

#include <algorithm>
#include <deque>
#include <set>

using namespace cuemu;

struct CUstream_st {
    std::deque<std::function<bool()>> work; /* false: not yet, an event is missing */
    bool blocking = true;
};
struct CUevent_st {
    long recorded = 0, reached = 0;
};

namespace cuemu {

static CUstream_st default_stream;
static std::set<CUstream_st *> streams;

static CUstream_st *stream_of(cudaStream_t stream) { return stream ? stream : &default_stream; }

static std::vector<CUstream_st *> every_stream() {
    std::vector<CUstream_st *> all(streams.begin(), streams.end());
    all.push_back(&default_stream);
    return all;
}

static bool advance(CUstream_st *stream) {
    if (stream->work.empty()) return false;
    const std::function<bool()> next = stream->work.front();
    if (!next()) return false;
    stream->work.pop_front();
    return true;
}

static void advance_until(const std::function<bool()> &done) {
    static uint64_t rounds = 0;
    if (done()) return;
    const device_access open;
    random_numbers numbers(config.seed ^ ++rounds << 20);
    while (!done()) {
        const std::vector<CUstream_st *> all = every_stream();
        const size_t first = numbers.below(static_cast<unsigned>(all.size()));
        bool moved = false;
        for (size_t i = 0; i < all.size() && !moved; i++) moved = advance(all[(first + i) % all.size()]);
        if (!moved) {
            report(CALL, "streams wait for each other");
            return;
        }
    }
}

static void wait_for(CUstream_st *stream) {
    advance_until([stream] { return stream->work.empty(); });
}

void wait_for_all() {
    advance_until([] {
        const std::vector<CUstream_st *> all = every_stream();
        return std::all_of(all.begin(), all.end(), [](const CUstream_st *stream) { return stream->work.empty(); });
    });
}

void enqueue(cudaStream_t stream, std::function<void()> work) {
    if (!stream) calls.on_default_stream++;
    if (!config.lazy) {
        work();
        return;
    }
    if (!stream)
        for (CUstream_st *other : streams)
            if (other->blocking) wait_for(other);
    if (stream && stream->blocking) wait_for(&default_stream);
    stream_of(stream)->work.push_back([work] {
        work();
        return true;
    });
}

} // namespace cuemu

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    *stream = new CUstream_st;
    (*stream)->blocking = !(flags & cudaStreamNonBlocking);
    streams.insert(*stream);
    return outcome();
}
cudaError_t cudaStreamCreate(cudaStream_t *stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    if (!streams.count(stream)) return refuse(CALL, cudaErrorInvalidResourceHandle, "cudaStreamDestroy: no stream");
    wait_for(stream);
    streams.erase(stream);
    delete stream;
    return outcome();
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    calls.synchronisations++;
    wait_for(stream_of(stream));
    return outcome();
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
    return stream_of(stream)->work.empty() ? outcome() : cudaErrorNotReady;
}

cudaError_t cudaDeviceSynchronize() {
    calls.synchronisations++;
    wait_for_all();
    return outcome();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
    *event = new CUevent_st;
    return outcome();
}
cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    wait_for_all();
    delete event;
    return outcome();
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    const long number = ++event->recorded;
    enqueue(stream, [event, number] { event->reached = number; });
    return outcome();
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    const long number = event->recorded;
    if (config.lazy) stream_of(stream)->work.push_back([event, number] { return event->reached >= number; });
    return outcome();
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    calls.synchronisations++;
    const long number = event->recorded;
    advance_until([event, number] { return event->reached >= number; });
    return outcome();
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t, cudaEvent_t) {
    *milliseconds = 0;
    return outcome();
}
