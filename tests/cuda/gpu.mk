# What a machine with a GPU needs, and the check that runs there (bench/gpu_check.py). Part of the Makefile.

gpu-bundle: $(BUILD)/penstock $(BUILD)/penstock-bench $(CUDA_OBJECT) $(GPU_TESTS) $(BUILD)/tests/unit/test_device_cuda $(BUILD)/bench/kernels_cuda ## put what a machine with a GPU needs into build/gpu-bundle (needs nvcc)
	@scripts/gpu-bundle.sh $(BUILD) "$(CUDA_OBJECT)" $(BUILD)/tests/gpu/libkernels.so $(GPU_TESTS)

gpu-check: gpu-bundle ## check and measure the CUDA device on this machine's GPU (docs/operations.md; ARGS="--parts conformance,kernels")
	@$(PYTHON) $(BUILD)/gpu-bundle/gpu-check --results bench/results $(ARGS)

# The kernels' tests once more, for a real GPU (gpu-check); without one they end and say so.
$(BUILD)/tests/gpu/libkernels.so: $(addprefix $(BUILD)/cuda/tests/cuda/,on_gpu.o probe.o) $(filter-out %/object.o,$(CUDA_FILES:%.cu=$(BUILD)/cuda/%.o))
	$(call say,nvcc) mkdir -p $(@D); $(NVCC) -shared -o $@ $^
$(BUILD)/tests/gpu/%: $(BUILD)/tests/unit/%.o $(BUILD)/tests/gpu/libkernels.so $(BUILD)/libpenstock.a
	$(call say,link) $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) -L$(@D) -lkernels -Wl,-rpath,'$$ORIGIN' -lcmocka $(LDLIBS)

-include $(addprefix $(BUILD)/cuda/tests/cuda/,on_gpu.d probe.d)
