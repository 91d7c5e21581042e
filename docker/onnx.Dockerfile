# Without torch: transcribes and serves what `glmasr export --format onnx` wrote, on CPUs. About 0.6 GB of Python.
#   docker build -f docker/onnx.Dockerfile -t glmasr:onnx .
#   docker run --rm -p 127.0.0.1:7860:7860 -v "$PWD/runs/exported:/bundle:ro" glmasr:onnx
# The bundle is mounted, never part of the image; nothing is fetched when it runs.

FROM python:3.11.13-slim-bookworm AS built
WORKDIR /source
COPY docker/requirements-onnx.txt docker/
RUN python -m venv /opt/glmasr \
 && /opt/glmasr/bin/pip install --no-cache-dir --disable-pip-version-check -r docker/requirements-onnx.txt \
 && /opt/glmasr/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps silero-vad==6.2.3
COPY pyproject.toml README.md LICENSE ./
COPY glmasr glmasr
RUN /opt/glmasr/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps . \
 && /opt/glmasr/bin/pip uninstall --yes --disable-pip-version-check pip setuptools

FROM python:3.11.13-slim-bookworm
RUN useradd --system --uid 10001 --create-home --home-dir /home/glmasr glmasr \
 && install --directory --owner glmasr /inbox /reviewed
COPY --from=built /opt/glmasr /opt/glmasr
COPY conf/review /rules
COPY docker/health.py /opt/glmasr/health.py
ENV PATH=/opt/glmasr/bin:$PATH PYTHONUNBUFFERED=1 GRADIO_ANALYTICS_ENABLED=False HF_HUB_OFFLINE=1
USER 10001
WORKDIR /home/glmasr
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["python", "/opt/glmasr/health.py"]
ENTRYPOINT ["glmasr"]
CMD ["serve", "--bundle", "/bundle", "--host", "0.0.0.0"]
