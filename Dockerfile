# On a GPU: transcribes and serves bundles, with torch and CUDA's libraries out of its wheels. About 7 GB of Python.
#   docker build -t glmasr:gpu .
#   docker run --rm --gpus all -p 127.0.0.1:7860:7860 -v "$PWD/runs/finetune/bundle:/bundle:ro" glmasr:gpu
# The bundle is mounted, never part of the image; nothing is fetched when it runs. The host needs NVIDIA's driver and
# container toolkit, and nothing of CUDA. Without a GPU: the same with `serve --bundle /bundle --host 0.0.0.0` behind
# it, or docker/onnx.Dockerfile, which is a tenth as large.

FROM python:3.11.13-slim-bookworm AS built
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
# The wheels first, for a package that is still empty: they are installed again only where pyproject.toml changes.
RUN python -m venv /opt/glmasr && mkdir glmasr && touch glmasr/__init__.py \
 && /opt/glmasr/bin/pip install --no-cache-dir --disable-pip-version-check '.[serve]'
COPY glmasr glmasr
RUN /opt/glmasr/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --force-reinstall . \
 && /opt/glmasr/bin/pip uninstall --yes --disable-pip-version-check pip

FROM python:3.11.13-slim-bookworm
RUN useradd --system --uid 10001 --create-home --home-dir /home/glmasr glmasr \
 && install --directory --owner glmasr /inbox /reviewed
COPY --from=built /opt/glmasr /opt/glmasr
COPY conf/review /rules
COPY docker/health.py /opt/glmasr/health.py
ENV PATH=/opt/glmasr/bin:$PATH PYTHONUNBUFFERED=1 GRADIO_ANALYTICS_ENABLED=False HF_HUB_OFFLINE=1 \
    OMP_WAIT_POLICY=PASSIVE NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
WORKDIR /home/glmasr
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 CMD ["python", "/opt/glmasr/health.py"]
ENTRYPOINT ["glmasr"]
CMD ["serve", "--bundle", "/bundle", "--host", "0.0.0.0", "--device", "cuda"]
