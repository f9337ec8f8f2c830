# A model on vLLM's engine, on GPUs; docs/serving.md has the commands.
#   docker build -f docker/vllm.Dockerfile -t armorm-vllm .
#   docker run --rm --gpus all --ipc=host -p 8000:8000 -v "$PWD/runs/mine/model:/model:ro" -e VLLM_API_KEY armorm-vllm
FROM vllm/vllm-openai:v0.32.0
COPY pyproject.toml README.md LICENSE /build/
COPY src /build/src
# Nothing that vLLM brought may change: all of it is pinned while ours is installed, and the build fails where that can't be.
RUN uv pip list --system --format=freeze > /build/pins.txt \
  && uv pip install --system --no-cache --constraint /build/pins.txt /build \
  && rm -rf /build
RUN useradd --system --create-home --uid 10001 armorm
ENV VLLM_PLUGINS=armorm HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
USER armorm
WORKDIR /home/armorm
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=900s --retries=3 \
  CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["vllm", "serve", "/model", "--runner", "pooling", "--host", "0.0.0.0", "--port", "8000"]
CMD ["--served-model-name", "model"]
