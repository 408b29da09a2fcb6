/*
 * driver.cpp: runs a fuzz target without libFuzzer, on inputs that follow from a seed, or on files.
 *
 *     fuzz_numbers -runs=5000 -seed=1      5000 inputs, the same on every machine
 *     fuzz_numbers -max_total_time=60      as many as a minute has
 *     fuzz_numbers FILE ...                one input a file, such as one that libFuzzer kept
 */
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

namespace {

int run_file(const char *path) {
    std::FILE *file = std::fopen(path, "rb");
    if (!file) {
        std::perror(path);
        return 1;
    }
    std::vector<uint8_t> bytes;
    for (int byte; (byte = std::fgetc(file)) != EOF;) bytes.push_back(static_cast<uint8_t>(byte));
    std::fclose(file);
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
    return 0;
}

/* Bytes of all lengths; some of one kind in a row, which makes sizes and values equal. */
std::vector<uint8_t> random_input(std::mt19937_64 &random) {
    std::vector<uint8_t> bytes(random() % 8 == 0 ? random() % 2048 : random() % 128);
    size_t place = 0;
    while (place < bytes.size()) {
        const uint64_t word = random();
        size_t row = word % 16 == 0 ? word / 16 % 64 : 1;
        for (; row > 0 && place < bytes.size(); row--) bytes[place++] = static_cast<uint8_t>(word >> 32);
    }
    return bytes;
}

} // namespace

int main(int count, char **arguments) {
    unsigned long long runs = 1000, seed = 1, seconds = 0, run = 0;
    int failures = 0, files = 0;
    for (int i = 1; i < count; i++) {
        if (std::sscanf(arguments[i], "-runs=%llu", &runs) == 1 ||
            std::sscanf(arguments[i], "-seed=%llu", &seed) == 1 ||
            std::sscanf(arguments[i], "-max_total_time=%llu", &seconds) == 1)
            continue;
        failures += run_file(arguments[i]);
        files++;
    }
    if (files) return failures != 0;
    const std::time_t end = std::time(nullptr) + static_cast<std::time_t>(seconds);
    for (; seconds ? std::time(nullptr) < end : run < runs; run++) {
        std::mt19937_64 random(seed * 1000003 + run);
        const std::vector<uint8_t> bytes = random_input(random);
        LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
    }
    std::printf("%llu inputs from the seed %llu\n", run, seed);
    return 0;
}
