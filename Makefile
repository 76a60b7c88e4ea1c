# BreastGPT Runtime. `make` prints what there is. Only build/ is written.
SHELL := /bin/bash
.DEFAULT_GOAL := help
MODE ?= release
CXX ?= g++
PREFIX ?= /usr/local
VERSION := 0.1.0
SOVERSION := 0

# Decoders of libbreastgpt_files can be left out: make JPEG=0 TIFF=0 HDF5=0.
JPEG ?= 1
TIFF ?= 1
HDF5 ?= 1
# CUDA=auto builds the kernels for GPUs where nvcc is installed, 1 insists on it, 0 leaves them out.
CUDA ?= auto
NVCC ?= $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
# GPUs that get code of their own; others compile the newest PTX that they understand, at their first start.
CUDA_ARCHS ?= 80 86 87 89 90 100 120
CUDA_PTX ?= 80 120
WITH_CUDA := $(if $(filter release,$(MODE)),$(if $(filter 0,$(CUDA)),0,$(if $(NVCC),1,$(if $(filter 1,$(CUDA)),$(error CUDA=1, but there is no nvcc: install the CUDA toolkit or name it with NVCC=),0))),0)
B := build/$(MODE)$(if $(filter 0,$(JPEG)),-nojpeg)$(if $(filter 0,$(TIFF)),-notiff)$(if $(filter 0,$(HDF5)),-nohdf5)$(if $(filter 0,$(CUDA)),-nocuda)
WARN := -Wall -Wextra -Werror
OPT_release := -O2 -g1
OPT_asan := -O1 -g -fsanitize=address -fno-omit-frame-pointer
OPT_ubsan := -O1 -g -fsanitize=undefined -fno-sanitize-recover=all
OPT_tsan := -O1 -g -fsanitize=thread
OPT := $(OPT_$(MODE))
CXXFLAGS += -std=c++20 $(OPT) $(WARN) -ffp-contract=off -fvisibility=hidden -fPIC -pthread -I. -MMD -MP
LDFLAGS += $(OPT) -pthread

FILES_FLAGS := -DBG_WITH_JPEG=$(JPEG) -DBG_WITH_TIFF=$(TIFF) -DBG_WITH_HDF5=$(HDF5) $(if $(filter 1,$(HDF5)),-isystem /usr/include/hdf5/serial)
FILES_LIBS := $(if $(filter 1,$(JPEG)),-ljpeg) $(if $(filter 1,$(TIFF)),-ltiff) $(if $(filter 1,$(HDF5)),-lhdf5_serial) -lz

# ---- sources: the core links utf8proc only; picture files, the converter and the tools come on top ----
LOADERS_CORE := loaders/gguf.cpp loaders/mapped_file.cpp loaders/sha256.cpp loaders/cursor.cpp
CORE := $(wildcard runtime/*.cpp kernels/*.cpp kernels/ref/*.cpp) $(filter-out %.isa.cpp,$(wildcard kernels/cpu/*.cpp)) $(LOADERS_CORE) \
  $(addprefix kernels/cuda/,simt_host.cpp device_emulated.cpp ops_emulated.cpp) $(if $(filter 0,$(WITH_CUDA)),kernels/cuda/no_cuda.cpp)
# Every kernel twice: for GPUs, and for the host, where it is emulated.
CUDA_ONLY := kernels/cuda/device_cuda.cu kernels/cuda/ops_cuda.cu
CUDA_KERNELS := $(filter-out $(CUDA_ONLY),$(wildcard kernels/cuda/*.cu))
ISA_SOURCES := $(wildcard kernels/cpu/*.isa.cpp)
MACHINE := $(shell $(CXX) -dumpmachine)
ISAS := portable $(if $(filter x86_64%,$(MACHINE)),avx2 avx512 avx512bf16 amx) $(if $(filter aarch64%,$(MACHINE)),neon neon_i8mm)
ISA_portable := -DBG_ISA=portable
ISA_avx2 := -DBG_ISA=avx2 -mavx2 -mfma -mf16c
# gcc 12 warns about its own header (_mm512_undefined_ps).
AVX512 := -Wno-maybe-uninitialized -Wno-uninitialized -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx2 -mfma -mf16c -mprefer-vector-width=512
ISA_avx512 := -DBG_ISA=avx512 $(AVX512)
ISA_avx512bf16 := -DBG_ISA=avx512bf16 $(AVX512) -mavx512bf16
ISA_amx := -DBG_ISA=amx $(AVX512) -mavx512bf16 -mamx-tile -mamx-bf16 -mamx-int8
ISA_neon := -DBG_ISA=neon -march=armv8.2-a+dotprod
ISA_neon_i8mm := -DBG_ISA=neon_i8mm -march=armv8.2-a+dotprod+i8mm
LEFT_OUT := $(if $(filter 0,$(JPEG)),loaders/image_jpeg.cpp) $(if $(filter 0,$(TIFF)),loaders/image_tiff.cpp) $(if $(filter 0,$(HDF5)),$(wildcard loaders/slide_hdf5*.cpp))
# What libbreastgpt_files.so needs of the core's own objects: the public API is all it takes from libbreastgpt.so.
SHARED := loaders/mapped_file.cpp loaders/sha256.cpp loaders/cursor.cpp runtime/boxes.cpp runtime/evidence.cpp
FILES := $(filter-out $(LOADERS_CORE) $(LEFT_OUT),$(wildcard loaders/*.cpp))
CONVERT := $(filter-out weights_convert/main.cpp,$(wildcard weights_convert/*.cpp))
CLI := $(wildcard tools/*.cpp)
BENCH := $(wildcard tools/bench/*.cpp)
STAGE := $(wildcard tools/stage/*.cpp) tools/options.cpp tools/interrupt.cpp
TESTS := $(wildcard tests/*.cpp)
# The kernels' own tests and what they need beside kernels/: no library of the system.
KERNEL_TESTS := tests/main.cpp tests/test_simt.cpp tests/test_quantised.cpp $(wildcard tests/test_kernels_*.cpp tests/test_cuda_*.cpp) $(filter kernels/%,$(CORE)) \
  $(addprefix loaders/,safetensors.cpp mapped_file.cpp cursor.cpp) $(addprefix weights_convert/,elements.cpp quantise.cpp)
SPEED := $(filter-out tests/bench/gpu%,$(wildcard tests/bench/*.cpp))
# The GPU's benchmark takes what both share from the CPU's.
GPU_SPEED := $(filter-out tests/bench/bench.cpp,$(wildcard tests/bench/*.cpp))

obj = $(patsubst %.cpp,$(B)/%.o,$(1))
ISA_OBJ := $(foreach i,$(ISAS),$(patsubst %.isa.cpp,$(B)/%.$(i).o,$(ISA_SOURCES)))
EMULATED_OBJ := $(patsubst %.cu,$(B)/%.emulated.o,$(CUDA_KERNELS))
CUDA_OBJ := $(if $(filter 1,$(WITH_CUDA)),$(patsubst %.cu,$(B)/%.cuda.o,$(CUDA_KERNELS) $(CUDA_ONLY)))
GPU_SPEED_OBJ := $(B)/tests/bench/gpu_device.emulated.o $(if $(filter 1,$(WITH_CUDA)),$(patsubst %.cu,$(B)/%.cuda.o,$(wildcard tests/bench/gpu*.cu)))
CORE_OBJ := $(call obj,$(CORE)) $(ISA_OBJ) $(EMULATED_OBJ) $(CUDA_OBJ)
CUDA_LIBS := $(if $(filter 1,$(WITH_CUDA)),-L$(dir $(NVCC))../lib64 -lcudart_static -ldl -lrt)
FILES_OBJ := $(call obj,$(FILES))
CONVERT_OBJ := $(call obj,$(CONVERT))

# Of the program and of the tests; not installed.
BENCH_LIB := $(B)/tools/bench.a
CORE_LIB := $(B)/libbreastgpt.a
FILES_LIB := $(B)/libbreastgpt_files.a
CORE_SO := $(B)/libbreastgpt.so.$(VERSION)
FILES_SO := $(B)/libbreastgpt_files.so.$(VERSION)

.PHONY: help deps lib cli demo test tested unit emulated avx512 neon asan ubsan tsan bench gpu-bench gpu-check gpu-check-programs install clean
help:
	@echo "make demo      install what is missing, build, ask the demo model about an ultrasound, a slide and a volume"
	@echo "make test      install what is missing, build, run every test"
	@echo "make lib cli   the libraries and the programs, in $(B)/"
	@echo "make asan | ubsan   the whole test suite under a sanitizer"
	@echo "make tsan            sessions, the API and the thread pool under another"
	@echo "make avx512    AVX-512's kernels emulated on any x86-64, their tests (part of make test)"
	@echo "make neon      the kernels cross-compiled for AArch64, their tests under emulation (part of make test)"
	@echo "make bench     measured ceilings of this machine and the share of them that each operation reaches; ARGS=model the whole model"
	@echo "make gpu-bench   on a machine with a GPU: its ceilings, the whole model, every operation, PyTorch beside them; ARGS=\"decode --csv FILE\""
	@echo "make gpu-check   on a machine with a GPU: the whole test suite on it, the demo model, compute-sanitizer"
	@echo "make install DESTDIR= PREFIX=$(PREFIX)   programs, libraries, headers, pkg-config files"
	@echo "make clean     remove build/"
	@echo "Options: CUDA=0 or JPEG=0 TIFF=0 HDF5=0 leave kernels for GPUs or decoders out; CXX=clang++ for lib and cli; MODE=release|asan|ubsan|tsan"

# ---- packages: what this machine lacks is named, and installed where apt-get may ----
deps:
	@tests/install_packages.sh

$(B)/%.o: %.cpp
	@mkdir -p $(@D)
	@echo $(CXX) $<
	@$(CXX) $(CXXFLAGS) $(EXTRA) -c $< -o $@
$(foreach i,$(ISAS),$(eval $(B)/%.$(i).o: %.isa.cpp ; @mkdir -p $$(@D) && echo $(CXX) $$< [$(i)] && $(CXX) $(CXXFLAGS) -O3 $(ISA_$(i)) -c $$< -o $$@))
$(foreach i,avx512 avx512bf16,$(eval $(B)/%.$(i)_emulated.o: %.isa.cpp ; @mkdir -p $$(@D) && echo $(CXX) $$< [$(i), emulated] && \
  $(CXX) $(CXXFLAGS) -Wno-psabi -DBG_ISA=$(i) -DBG_AVX512_EMULATED=1 -mavx2 -mfma -mf16c -c $$< -o $$@))
$(B)/kernels/cpu/ops.avx512_emulated.o: kernels/cpu/ops.cpp
	@mkdir -p $(@D)
	@$(CXX) $(CXXFLAGS) -DBG_AVX512_EMULATED=1 -c $< -o $@
ifneq ($(MODE),release)
build/release/kernels/cpu/%.o:
	@$(MAKE) --no-print-directory MODE=release $@
endif
$(B)/%.emulated.o: %.cu
	@mkdir -p $(@D)
	@echo $(CXX) $< [emulated]
	@$(CXX) $(CXXFLAGS) -x c++ -c $< -o $@
# Bits must not depend on whether the compiler sees a·b + c: -fmad=false. Registers and spills of every kernel go to a file beside the object.
NVCC_FLAGS := -std=c++20 -O3 -fmad=false -Xptxas -v --compress-mode=size --expt-relaxed-constexpr -I. -ccbin $(CXX) -Xcompiler "-Wall,-Wextra,-Wno-unused-parameter,-fPIC,-fvisibility=hidden,-pthread" \
  $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) $(foreach a,$(CUDA_PTX),-gencode arch=compute_$(a),code=compute_$(a))
$(B)/%.cuda.o: %.cu
	@mkdir -p $(@D)
	@echo nvcc $<
	@$(NVCC) $(NVCC_FLAGS) $(EXTRA) -MMD -MP -MF $(@:.o=.d) -c $< -o $@ > $(@:.o=.ptxas) 2>&1 || { cat $(@:.o=.ptxas); exit 1; }
$(FILES_OBJ): EXTRA := $(FILES_FLAGS)
$(B)/kernels/cuda/device_cuda.cuda.o: EXTRA = -DBG_CUDA_BUILD='"CUDA $(shell $(NVCC) --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p'), code for $(addprefix sm_,$(CUDA_ARCHS)), PTX $(CUDA_PTX)"'

$(CORE_LIB): $(CORE_OBJ)
	@rm -f $@ && ar rcs $@ $^
$(FILES_LIB): $(FILES_OBJ)
	@rm -f $@ && ar rcs $@ $^
$(CORE_SO): $(CORE_OBJ)
	@echo link $@
	@$(CXX) -shared -Wl,-soname,libbreastgpt.so.$(SOVERSION) -Wl,-z,defs $^ -o $@ $(LDFLAGS) -lutf8proc $(CUDA_LIBS)
	@ln -sf $(@F) $(B)/libbreastgpt.so.$(SOVERSION) && ln -sf $(@F) $(B)/libbreastgpt.so
$(FILES_SO): $(FILES_OBJ) $(CORE_SO) $(call obj,$(SHARED))
	@echo link $@
	@$(CXX) -shared -Wl,-soname,libbreastgpt_files.so.$(SOVERSION) -Wl,-z,defs $(filter %.o,$^) -o $@ $(LDFLAGS) -L$(B) -lbreastgpt $(FILES_LIBS)
	@ln -sf $(@F) $(B)/libbreastgpt_files.so.$(SOVERSION) && ln -sf $(@F) $(B)/libbreastgpt_files.so
$(BENCH_LIB): $(call obj,$(BENCH))
	@rm -f $@ && ar rcs $@ $^
$(B)/breastgpt: $(call obj,$(CLI)) $(BENCH_LIB) $(FILES_LIB) $(CORE_LIB)
	@echo link $@
	@$(CXX) $^ -o $@ $(LDFLAGS) $(FILES_LIBS) -lutf8proc $(CUDA_LIBS)
$(B)/breastgpt-stage: $(call obj,$(STAGE)) $(FILES_LIB) $(CORE_LIB)
	@echo link $@
	@$(CXX) $^ -o $@ $(LDFLAGS) $(FILES_LIBS) -lutf8proc $(CUDA_LIBS)
$(B)/breastgpt-convert: $(call obj,weights_convert/main.cpp) $(CONVERT_OBJ) $(FILES_LIB) $(CORE_LIB)
	@echo link $@
	@$(CXX) $^ -o $@ $(LDFLAGS) -lutf8proc $(CUDA_LIBS)
$(B)/tests/example.o: tests/example.c
	@mkdir -p $(@D)
	$(CC) -std=c99 -pedantic $(OPT) $(WARN) -I. -MMD -MP -c $< -o $@
$(B)/tests/run: $(call obj,$(TESTS)) $(B)/tests/example.o $(CONVERT_OBJ) $(BENCH_LIB) $(FILES_LIB) $(CORE_LIB)
	@echo link $@
	@$(CXX) $^ -o $@ $(LDFLAGS) $(FILES_LIBS) -lutf8proc $(CUDA_LIBS)
# For the GPU's kernels under a sanitizer, those of processors come from the release build: under a sanitizer they take ten minutes to compile, and only comparisons run them here (`make asan` has all).
$(B)/tests/kernels: $(call obj,$(KERNEL_TESTS)) $(if $(filter emulated,$(MAKECMDGOALS)),$(patsubst build/$(MODE)%,build/release%,$(ISA_OBJ)),$(ISA_OBJ)) $(EMULATED_OBJ) $(CUDA_OBJ)
	@echo link $@
	@$(CXX) $^ -o $@ $(LDFLAGS) $(CUDA_LIBS)
# The same with AVX-512's kernels made of loops.
$(B)/tests/kernels-avx512: $(filter-out %/cpu/ops.o,$(call obj,$(KERNEL_TESTS))) $(filter-out %.avx512.o %.avx512bf16.o,$(ISA_OBJ)) $(EMULATED_OBJ) $(CUDA_OBJ) \
    $(foreach i,avx512 avx512bf16,$(patsubst %.isa.cpp,$(B)/%.$(i)_emulated.o,$(ISA_SOURCES))) $(B)/kernels/cpu/ops.avx512_emulated.o
	@echo link $@
	@$(CXX) $^ -o $@ $(LDFLAGS) $(CUDA_LIBS)
$(B)/bench: $(call obj,$(SPEED) weights_convert/mix.cpp) $(CORE_LIB)
	@echo link $@
	@$(CXX) $^ -o $@ $(LDFLAGS) -lutf8proc $(CUDA_LIBS)
$(B)/gpu-bench: $(call obj,$(GPU_SPEED) weights_convert/mix.cpp) $(GPU_SPEED_OBJ) $(CORE_LIB)
	@echo link $@
	@$(CXX) $^ -o $@ $(LDFLAGS) -lutf8proc $(CUDA_LIBS)

lib: $(CORE_LIB) $(FILES_LIB) $(CORE_SO) $(FILES_SO)
cli: $(B)/breastgpt $(B)/breastgpt-convert $(B)/breastgpt-stage

JOBS := -j$(shell nproc)
demo: deps
	@$(MAKE) --no-print-directory $(JOBS) cli
	@tests/demo.sh $(B)

# An emulated processor keeps one core busy for minutes, so it works beside the rest.
test: deps
	@mkdir -p build; failed=0; \
	$(MAKE) --no-print-directory neon > build/neon.log 2>&1 & neon=$$!; \
	$(MAKE) --no-print-directory $(JOBS) tested || failed=1; \
	$(MAKE) --no-print-directory $(JOBS) MODE=asan emulated || failed=1; \
	$(MAKE) --no-print-directory $(JOBS) avx512 || failed=1; \
	wait $$neon && grep ^NEON build/neon.log || { cat build/neon.log; failed=1; }; \
	$(MAKE) --no-print-directory $(JOBS) unit && exit $$failed
tested: $(B)/tests/run lib cli $(B)/gpu-bench
unit: tested
	@tests/ptxas.sh $(B)
	BG_BUILD=$(B) BG_CORE_SO=$(CORE_SO) $(B)/tests/run $(TEST_ARGS)

# The GPU's kernels under the address sanitizer, each tensor in memory of just its size.
emulated: $(B)/tests/kernels
	@BG_TEST_BACKENDS=emulated ASAN_OPTIONS=detect_leaks=1 $< -tce='kernels: names*' > $(B)/emulated.log 2>&1 || { cat $(B)/emulated.log; echo "CUDA, emulated under the address sanitizer: FAILED"; exit 1; }
	@echo "CUDA, emulated under the address sanitizer: $$(tail -n 1 $(B)/emulated.log)"

# AVX-512's kernels on any x86-64, so that they are tested where there is none.
ifeq ($(filter x86_64%,$(MACHINE)),)
avx512:
else
avx512: $(B)/tests/kernels-avx512
	@BG_TEST_BACKENDS=cpu $< -tce='cuda*,mirror*' > $(B)/avx512.log 2>&1 && ! grep -q "up to avx2" $(B)/avx512.log || { cat $(B)/avx512.log; echo "AVX-512, emulated: FAILED"; exit 1; }
	@grep -q "up to portable" $(B)/avx512.log && echo "AVX-512: NOT TESTED, its emulation needs a processor with AVX2." || echo "AVX-512, emulated: $$(tail -n 1 $(B)/avx512.log)"
endif

neon:
	@MAKE="$(MAKE) $(JOBS)" tests/neon.sh

asan ubsan: deps
	@$(MAKE) --no-print-directory $(JOBS) MODE=$@ sanitized
sanitized: $(B)/tests/run cli $(B)/gpu-bench
	ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1 BG_BUILD=$(B) $(B)/tests/run $(TEST_ARGS)
# ThreadSanitizer cannot follow the fibers that stand for a GPU's threads: the library from several threads, and what the CPU's kernels share out.
tsan: deps
	@$(MAKE) --no-print-directory $(JOBS) MODE=tsan races
races: $(B)/tests/run $(B)/tests/kernels cli
	BG_BUILD=$(B) $(B)/tests/run -tc='api*,session*'
	BG_TEST_BACKENDS=cpu BG_BUILD=$(B) $(B)/tests/kernels -tc='kernels*,attention_causal*,rotate*'
.PHONY: sanitized races

bench: deps
	@$(MAKE) --no-print-directory $(JOBS) $(B)/bench
	$(B)/bench $(ARGS)

# Where nothing was compiled for GPUs yet, only for the one that this machine has, in build/gpu: minutes less.
GPU_ARCH = $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
GPU_B = $(if $(wildcard $(B)/kernels/cuda/rows.cuda.o),$(B),$(if $(GPU_ARCH),build/gpu,$(B)))
GPU_MAKE = $(MAKE) --no-print-directory $(JOBS) $(if $(filter build/gpu,$(GPU_B)),B=build/gpu CUDA_ARCHS=$(GPU_ARCH) CUDA_PTX=$(GPU_ARCH))
gpu-bench: deps
	@$(GPU_MAKE) $(GPU_B)/gpu-bench
	$(GPU_B)/gpu-bench $(ARGS)
gpu-check:
	@MAKE="$(GPU_MAKE)" tests/gpu_check.sh $(GPU_B)
gpu-check-programs: $(B)/tests/run $(B)/tests/kernels lib cli $(B)/gpu-bench

install: lib cli
	install -d $(DESTDIR)$(PREFIX)/{bin,lib/pkgconfig,include,share/doc/breastgpt,share/breastgpt/templates/roles}
	install -m755 $(B)/breastgpt $(B)/breastgpt-convert $(B)/breastgpt-stage $(DESTDIR)$(PREFIX)/bin/
	install -m644 $(CORE_LIB) $(FILES_LIB) $(CORE_SO) $(FILES_SO) $(DESTDIR)$(PREFIX)/lib/
	for l in breastgpt breastgpt_files; do ln -sf lib$$l.so.$(VERSION) $(DESTDIR)$(PREFIX)/lib/lib$$l.so.$(SOVERSION); ln -sf lib$$l.so.$(SOVERSION) $(DESTDIR)$(PREFIX)/lib/lib$$l.so; done
	install -m644 tools/templates/*.json tools/templates/README.md $(DESTDIR)$(PREFIX)/share/breastgpt/templates/
	install -m644 tools/templates/roles/*.txt $(DESTDIR)$(PREFIX)/share/breastgpt/templates/roles/
	install -m644 weights_convert/demo/breastgpt-demo.gguf tools/bench/breastgpt-bench.slurm $(DESTDIR)$(PREFIX)/share/breastgpt/
	install -m644 runtime/breastgpt.h runtime/breastgpt_files.h $(DESTDIR)$(PREFIX)/include/
	install -m644 README.md LICENSE runtime/MODEL.md $(DESTDIR)$(PREFIX)/share/doc/breastgpt/
	printf 'prefix=$(PREFIX)\nName: breastgpt\nDescription: BreastGPT Runtime\nVersion: $(VERSION)\nCflags: -I$${prefix}/include\nLibs: -L$${prefix}/lib -lbreastgpt\nLibs.private: -lutf8proc -lstdc++ -lm -pthread $(CUDA_LIBS)\n' > $(DESTDIR)$(PREFIX)/lib/pkgconfig/breastgpt.pc
	printf 'prefix=$(PREFIX)\nName: breastgpt_files\nDescription: BreastGPT Runtime, picture files\nVersion: $(VERSION)\nRequires: breastgpt\nCflags: -I$${prefix}/include\nLibs: -L$${prefix}/lib -lbreastgpt_files\nLibs.private: $(FILES_LIBS)\n' > $(DESTDIR)$(PREFIX)/lib/pkgconfig/breastgpt_files.pc

clean:
	rm -rf build

-include $(shell find $(B) -name '*.d' 2>/dev/null)
