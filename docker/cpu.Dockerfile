# A model behind HTTP, on CPUs; docs/serving.md has the commands.
#   docker build -f docker/cpu.Dockerfile -t armorm .
#   docker run --rm -p 8000:8000 -v "$PWD/runs/starter/model:/model:ro" -e ARMORM_API_KEY armorm
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=/build/constraints.txt
RUN python -m venv /opt/armorm
ENV PATH=/opt/armorm/bin:$PATH
COPY constraints.txt /build/
# First, and of PyTorch's own index: what comes from elsewhere brings several GB of CUDA.
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu torch
COPY pyproject.toml README.md LICENSE /build/
COPY src /build/src
RUN pip install '/build[serve]'

FROM python:3.11.14-slim-bookworm
COPY --from=build /opt/armorm /opt/armorm
RUN useradd --system --create-home --uid 10001 armorm
ENV PATH=/opt/armorm/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1
USER armorm
WORKDIR /home/armorm
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["armorm", "serve", "/model", "--name", "model", "--host", "0.0.0.0", "--port", "8000"]
CMD ["--api-key-env", "ARMORM_API_KEY"]
