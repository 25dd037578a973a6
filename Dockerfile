# raysd with Ray, for clusters. On GPUs, then without:
#   docker build -t raysd:0.1.0 .
#   docker build -t raysd:0.1.0-cpu --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
WORKDIR /src
# What raysd, all kinds of models and object stores need, in a file of its own: these layers are kept until pyproject.toml changes.
COPY pyproject.toml ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
    extras = project['optional-dependencies']; \
    print(*project['dependencies'], *extras['models'], *extras['s3'], *extras['gcs'], *extras['azure'], sep='\n')" > requirements.txt
COPY LICENSE README.md setup.py ./
COPY raysd ./raysd
# raysd/assets/experiments is a link to it.
COPY configs ./configs
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim-bookworm
# torch.compile calls a C compiler on the machine that it runs on.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
# A number, so that Kubernetes can see that it is not root.
RUN useradd --create-home --uid 1000 raysd
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
# The CUDA version of the wheels must not be newer than what the nodes' driver knows.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cu130
COPY --from=build /src/requirements.txt /tmp/
RUN grep -E "^torch(vision)?>" /tmp/requirements.txt > /tmp/torch.txt && pip install --no-cache-dir --index-url ${TORCH_INDEX} -r /tmp/torch.txt
# All nodes and whoever submits jobs need the same version of Ray; the manifests in configs/kuberay name it too.
ARG RAY_VERSION=2.60.0
RUN pip install --no-cache-dir "ray[data,train,tune,default]==${RAY_VERSION}" -r /tmp/requirements.txt
COPY --from=build /wheels /tmp/wheels
RUN pip install --no-cache-dir --no-deps /tmp/wheels/*.whl
# Scripts and experiments only. The package itself is the installed one.
COPY jobs /opt/raysd/jobs
COPY configs /opt/raysd/configs
USER 1000
WORKDIR /home/raysd
ENTRYPOINT ["raysd"]
CMD ["--help"]
