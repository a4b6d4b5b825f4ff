# The sync on the official Airflow image: its requirements under Airflow's own constraints, its code of one commit.
FROM apache/airflow:3.3.2-python3.12

# The constraints that the image itself was built with; they hold the versions that Airflow was tested with.
COPY requirements.txt /requirements.txt
RUN pip install --no-cache-dir --constraint "${HOME}/constraints.txt" "apache-airflow==${AIRFLOW_VERSION}" \
    --requirement /requirements.txt

COPY --chown=airflow:root include/ /opt/airflow/include/
COPY --chown=airflow:root dags/ /opt/airflow/dags/
COPY --chown=airflow:root plugins/ /opt/airflow/plugins/

# Every process of Airflow imports the package as `directory_sync`.
ENV PYTHONPATH=/opt/airflow/include

ARG REVISION=unknown
ARG VERSION=unknown
LABEL org.opencontainers.image.title="Directory Sync: Cognito to Joget" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
